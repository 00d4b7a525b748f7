"""A headless Chromium, driven over a pipe: no driver program and no websocket library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_S = 40
# Words on what is behind them, [text, ratio], where WCAG 2.2 (1.4.3) wants more. Words of drawings have a halo of the
# card's colour.
FAINT = """(() => {
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [...n.slice(0, 3), n[3] ?? 1]; };
  const over = (a, b) => b.map((v, i) => i < 3 ? a[i] * a[3] + v * (1 - a[3]) : 1);
  const behind = (e) => {
    const found = [];
    for (; e; e = e.parentElement) found.unshift(rgba(getComputedStyle(e).backgroundColor));
    return found.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  document.querySelectorAll('details').forEach((one) => { one.open = true; });
  return [...document.querySelectorAll('body *')].flatMap((e) => {
    const own = [...e.childNodes].filter((n) => n.nodeType === 3 && n.data.trim()).map((n) => n.data).join('');
    if (!own || !e.getClientRects().length) return [];
    const style = getComputedStyle(e), back = behind(e);
    const ink = over(rgba(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((p, q) => q - p), ratio = (a + 0.05) / (b + 0.05);
    return ratio < 4.5 ? [[own, ratio]] : [];
  });
})()"""


class Browser:
    """One page. `call` sends a command of the DevTools protocol; what the page reports gathers in `events`."""

    def __init__(self, to_browser: int, from_browser: int):
        self._out, self._in, self._last, self._session = to_browser, from_browser, 0, None
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, place: Path | str, *, width: int, dark: bool = False) -> None:
        """Load a file or an address at a viewport of `width` px and wait until it has finished."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Exceptions, console output and log entries since the page was opened."""
        self.value("0")
        loud = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in loud]

    def requests(self) -> list[str]:
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=self._whole())
        path.write_bytes(base64.b64decode(shot["data"]))

    def _whole(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("chromium ended early")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """Chromium reads commands from its descriptor 3 and answers on 4; a shell puts our pipes there."""
    (command_out, command_in), (answer_out, answer_in) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        shell = f'exec "$0" "$@" 3<&{command_out} 4>&{answer_in}'
        process = subprocess.Popen(
            ["bash", "-c", shell, str(BINARY), *QUIET, *flags, f"--user-data-dir={home}"],
            pass_fds=(command_out, answer_in),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(command_out)
        os.close(answer_in)
        try:
            yield Browser(command_in, answer_out)
        finally:
            os.close(command_in)
            os.close(answer_out)
            _end(process)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
        process.wait()
