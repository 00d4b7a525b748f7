"""The page as a user has it: a browser that draws, types, clicks and looks."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.stages import serve
from tests.report.browser import Browser

PATIENCE_S = 40
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
Points = Sequence[tuple[float, float]]  # shares of the paper's width and height


@contextmanager
def served(contents: serve.Site) -> Iterator[str]:
    """The address of a page of these files, on a port that no page has had: a browser keeps connections open."""
    with socket.socket() as probe:
        probe.bind((serve.LOOPBACK, 0))
        port = probe.getsockname()[1]
    with serve.server(contents, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


class Page:
    def __init__(self, browser: Browser, address: str, *, width: int = 1180, dark: bool = False, fresh: bool = False):
        """`fresh`: nothing is kept from before."""
        self.browser = browser
        if fresh:
            browser.open("about:blank", width=width)
            browser.call("Storage.clearDataForOrigin", origin=address.rstrip("/"), storageTypes="all")
        browser.open(address, width=width, dark=dark)
        self.until("document.querySelector('#page').dataset.state !== 'loading'")

    def value(self, expression: str) -> Any:
        return self.browser.value(expression)

    def text(self, selector: str) -> str:
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")

    def until(self, expression: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.value(f"Boolean({expression})"):
            shown = "document.body.innerText"
            assert time.monotonic() < end, (expression, self.value(shown), self.browser.complaints())
            time.sleep(0.02)

    def now(self, expression: str) -> Any:
        """The value of an expression over `now`, what the page knows."""
        return self.value(f"import('./app.mjs').then(({{ready}}) => ready).then((now) => {expression})")

    def click(self, selector: str) -> None:
        """With the mouse, where the element is."""
        left, top, width, height = self._box(selector)
        x, y = left + width / 2, top + height / 2
        self._mouse("mousePressed", x, y)
        self._mouse("mouseReleased", x, y)

    def draw(self, *strokes: Points) -> None:
        left, top, width, height = self._box("#paper")
        for stroke in strokes:
            points = [(left + x * width, top + y * height) for x, y in stroke]
            self._mouse("mousePressed", *points[0])
            for x, y in points[1:]:
                self._mouse("mouseMoved", x, y)
            self._mouse("mouseReleased", *points[-1])

    def key(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.browser.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def name(self, name: str) -> None:
        """Type the name of a new class, and Enter."""
        self.value("document.querySelector('#new-name').focus()")
        self.browser.call("Input.insertText", text=name)
        self.key("Enter", 13, "\r")

    def files(self, selector: str, *paths: Path) -> None:
        """Choose files in a file field."""
        found = self.browser.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.browser.call("DOM.setFileInputFiles", files=list(map(str, paths)), objectId=found["result"]["objectId"])

    def hand_over(self, path: Path, how: str, selector: str) -> None:
        """Drop or paste a file on an element."""
        kind, holder = {"drop": ("DragEvent", "dataTransfer"), "paste": ("ClipboardEvent", "clipboardData")}[how]
        data = base64.b64encode(path.read_bytes()).decode()
        bytes_of = f"Uint8Array.from(atob('{data}'), (one) => one.charCodeAt(0))"
        self.value(
            f"(() => {{ const all = new DataTransfer();"
            f"all.items.add(new File([{bytes_of}], '{path.name}', {{type: 'image/png'}}));"
            f"const event = new {kind}('{how}', {{{holder}: all, bubbles: true, cancelable: true}});"
            f"document.querySelector('{selector}').dispatchEvent(event) }})()"
        )

    def settled(self, examples: int) -> None:
        """Wait until so many examples are learned and kept."""
        self.until(f"document.querySelectorAll('.thumbs li').length === {examples}")
        self.now("now.settled()")

    def tensors(self) -> list[np.ndarray]:
        """What each example is to the network, flat."""
        texts = self.now("now.state.examples.map(({x}) => btoa(String.fromCharCode(...new Uint8Array(x.buffer))))")
        return [np.frombuffer(base64.b64decode(text), np.float32) for text in texts]

    def paper(self, path: Path) -> Path:
        """The drawing as a file."""
        url = self.value("document.querySelector('#paper').toDataURL('image/png')")
        path.write_bytes(base64.b64decode(url.partition(",")[2]))
        return path

    def _box(self, selector: str) -> list[float]:
        """Left, top, width and height of an element, in view."""
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        place = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return self.value(f"(({{x, y, width, height}}) => [x, y, width, height])({place})")

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.browser.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            buttons=int(kind != "mouseReleased"),
            clickCount=1,
        )
