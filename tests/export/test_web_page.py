"""The page in Chromium: really drawn on, taught and asked, and held against Python."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemeta.stages import serve, web_runtime
from tests.export.web_golden import logits, preprocess, write
from tests.export.web_page import FAKE_CAMERA, Page, served
from tests.report.browser import BINARY, FAINT, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(BINARY is None, reason="no chromium here; `make system-deps` installs it"),
    pytest.mark.skipif(web_runtime.present() is None, reason="no onnxruntime-web here; `make web` fetches it"),
]


def bar(x: float, wobble: float = 0.0) -> list[tuple[float, float]]:
    return [(x + wobble * (i % 2), 0.15 + 0.07 * i) for i in range(11)]


def lying(y: float, wobble: float = 0.0) -> list[tuple[float, float]]:
    return [(across, down) for down, across in bar(y, wobble)]


BARS = "document.querySelectorAll('#bars i')"
SHAPES = {"left": lambda w: bar(0.22, w), "right": lambda w: bar(0.75, w), "low": lambda w: lying(0.75, w)}


@pytest.fixture(scope="module")
def chromium():
    with browser(*FAKE_CAMERA) as found:
        yield found


@pytest.fixture(scope="module")
def written(draw, tmp_path_factory):
    """Bundles by learner."""
    images = np.stack(sum(draw(4).values(), []))[:, None].astype(np.float32) / 255
    return cache(lambda name: write(tmp_path_factory.mktemp("bundle"), name, images))


@pytest.fixture(scope="module")
def address(written):
    with served(serve.site(written("protonet"))) as found:
        yield found


def teach(page: Page, *names: str, tmp_path=None) -> list:
    """Draw two examples of each shape: the first names it, the second is taught by its button."""
    drawings, before = [], page.value("document.querySelectorAll('.thumbs li').length")
    for name in names:
        for example in range(2):
            page.draw(SHAPES[name](0.02 * example))
            if tmp_path:
                drawings.append(page.paper(tmp_path / f"{name}{example}.png"))
            page.name(name) if not example else page.click(".chip:last-child")
            before += 1
            page.settled(before)
    return drawings


def asked(page: Page, name: str) -> None:
    page.draw(SHAPES[name](0.01))
    page.until("document.querySelector('#verdict').className.includes('sure')")


@pytest.mark.parametrize("learner", ["protonet", "maml-last"])  # on features and on images
def test_drawn_taught_asked_and_still_there_after_a_reload(chromium, written, tmp_path, learner):
    folder = written(learner)
    with served(serve.site(folder)) as address:
        page = Page(chromium, address, fresh=True)
        assert page.text("h1") == "Teach me classes" and page.text("#verdict") == "Nothing taught yet"
        drawings = teach(page, *SHAPES, tmp_path=tmp_path)
        rule = json.loads((folder / "manifest.json").read_text())["normalisation"]
        support = np.stack([preprocess(path, rule) for path in drawings])
        assert np.abs(np.stack(page.tensors()) - support.reshape(6, -1)).max() < 1e-4
        for name in SHAPES:
            page.draw(SHAPES[name](0.01))
            query = preprocess(page.paper(tmp_path / "query.png"), rule)
            expected = logits(folder, support, np.repeat(np.arange(3), 2), query[None])[0]
            got = page.now(f"now.worker.call('classify', Float32Array.from({query.ravel().tolist()}))")["logits"]
            np.testing.assert_allclose(got, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
            shares = np.exp(expected - expected.max()) / np.exp(expected - expected.max()).sum()
            page.until(
                f"Math.abs(parseFloat({BARS}[{shares.argmax()}].style.inlineSize) - {100 * shares.max()}) < 0.01"
            )
            if shares.max() >= 0.6:
                assert page.text("#verdict") == list(SHAPES)[shares.argmax()]
            page.click("#clear")
        assert all(re.fullmatch(r"[\d.]+ ms", page.text(place)) for place in ("#infer", "#adapt"))

        again = Page(chromium, address)
        assert again.texts("#classes .count") == ["2 examples"] * 3
        assert np.array_equal(np.stack(again.tensors()), np.stack(page.tensors()))
        asked(again, "right")
        assert chromium.complaints() == []
        assert all(url.startswith((address, "data:")) for url in chromium.requests())


def test_photographs_are_the_same_numbers_as_in_python(chromium, address, written, tmp_path):
    page = Page(chromium, address, fresh=True)
    rule = json.loads((written("protonet") / "manifest.json").read_text())["normalisation"]
    for i, path in enumerate(photographs(tmp_path)):
        page.files("#file", path)
        page.until("document.querySelector('[data-mode=picture][data-filled=true]')")
        page.name(path.stem)
        page.settled(i + 1)
        assert np.abs(page.tensors()[-1] - preprocess(path, rule).ravel()).max() < 1e-4, path.name
    page.hand_over(tmp_path / "grey.png", "drop", "#classes > li")  # on a class: an example of it
    page.settled(5)
    assert page.texts("#classes .count")[0] == "2 examples" and np.array_equal(page.tensors()[4], page.tensors()[1])
    page.hand_over(tmp_path / "colour.png", "paste", "body")
    page.until("document.querySelector('[data-mode=picture][data-filled=true] #verdict:is(.sure, .unsure)')")
    assert page.now("[now.stage.source.width, now.stage.source.height]") == [90, 60]
    (tmp_path / "none.png").write_text("no picture")
    page.hand_over(tmp_path / "none.png", "drop", "body")
    page.until("document.querySelector('.toast.bad')")
    assert "none.png is not a picture" in page.text(".toast")
    assert chromium.complaints() == []


def photographs(folder: Path) -> list[Path]:
    """Soft light on something, as colour PNG and JPEG, grey, and lying on its side with a note of that (EXIF)."""
    across, down = np.meshgrid(np.linspace(0, 3, 90), np.linspace(0, 2, 60))
    rgb = np.stack([np.sin(across + down), np.cos(across * down), np.sin(down)], -1) * 90 + 140
    image = Image.fromarray(rgb.astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "colour.png")
    image.convert("L").save(folder / "grey.png")
    image.save(folder / "soft.jpg", quality=92)
    image.save(folder / "turned.jpg", exif=turned, quality=92)
    return [folder / name for name in ("colour.png", "grey.png", "soft.jpg", "turned.jpg")]


def test_a_class_is_renamed_forgotten_and_brought_back(chromium, address):
    page = Page(chromium, address, fresh=True)
    teach(page, "left", "right")
    page.click("#classes .forget")
    page.settled(2)
    assert page.texts(".chip .name") == ["right"] and page.text("#verdict") == "One more class"
    page.click(".toast button")
    page.settled(4)
    assert page.texts(".chip .name") == ["left", "right"]
    page.click(".thumbs button")
    page.settled(3)
    assert page.texts("#classes .count") == ["1 example", "2 examples"]
    page.click("#classes .name")
    page.value("document.activeElement.select()")
    page.browser.call("Input.insertText", text="links")
    page.key("Enter", 13, "\r")
    page.until("document.querySelector('.chip .name').innerText === 'links'")
    page.name("right")
    page.until("document.querySelector('.toast.bad')")
    assert "already" in page.text(".toast") and len(page.texts(".chip")) == 2
    page.now("now.settled()")
    assert [one["name"] for one in page.now("now.store.load()")["classes"]] == ["links", "right"]


def test_below_the_threshold_it_is_unknown(chromium, address):
    page = Page(chromium, address, fresh=True)
    teach(page, "left", "right")
    asked(page, "left")
    slide = (
        "(to) => { const one = document.querySelector('#threshold'); one.value = to;"
        "for (const name of ['input', 'change']) one.dispatchEvent(new Event(name)) }"
    )
    page.value(f"({slide})(100)")
    page.until("document.querySelector('#verdict').innerText === 'Unknown'")
    assert "left comes closest" in page.text("#why") and page.text("#threshold-text") == "100 %"
    page.value(f"({slide})(0)")
    page.until("document.querySelector('#verdict').innerText === 'left'")
    page.now("now.settled()")
    assert page.now("now.store.load()")["threshold"] == 0


def test_by_keyboard_alone(chromium, address):
    """Draw with arrows, name, draw again, teach with a digit."""
    page = Page(chromium, address, fresh=True)
    for i in range(2):
        page.value("document.querySelector('#paper').focus()")
        page.key(" ", 32, " ")
        for _ in range(8):
            page.key("ArrowDown", 40)
        page.key(" ", 32, " ")
        page.name("line") if not i else page.key("1", 49, "1")
        page.settled(i + 1)
    assert page.texts("#classes .count") == ["2 examples"]
    page.value("document.querySelector('#paper').focus()")
    page.key(" ", 32, " ")
    page.until("document.querySelector('[data-filled=true]')")
    page.key("Escape", 27)
    page.until("document.querySelector('[data-filled=false]')")


def test_the_camera_is_looked_through_and_let_go(chromium, address):
    page = Page(chromium, address, fresh=True)
    page.click("#mode-camera + svg")
    page.until("document.querySelector('[data-mode=camera][data-filled=true]')")
    for i, name in enumerate(("one", "two")):
        page.name(name)
        page.settled(i + 1)
    page.until("document.querySelector('#verdict').matches('.sure, .unsure')")
    page.click("#mode-draw + svg")
    page.until("document.querySelector('#verdict').matches('.idle')")
    assert page.value("document.querySelector('#video').srcObject === null")
    assert chromium.complaints() == []


def test_a_copy_is_saved_and_opened(chromium, address, tmp_path):
    page = Page(chromium, address, fresh=True)
    teach(page, "left", "right")
    before = np.stack(page.tensors())
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#save")
    while not (copies := list(tmp_path.glob("*.json"))):
        page.value("new Promise((done) => setTimeout(done, 50))")
    for left in (2, 0):
        page.click("#classes .forget")
        page.settled(left)
    (tmp_path / "half.txt").write_text(copies[0].read_text()[:400])
    page.files("#open-file", tmp_path / "half.txt")
    page.until("document.querySelector('.toast.bad')")
    assert "damaged" in page.text(".toast")
    page.files("#open-file", copies[0])
    page.settled(4)
    assert np.array_equal(np.stack(page.tensors()), before)
    asked(page, "right")


def damaged(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"bundle/body.onnx": files["bundle/body.onnx"][:-1] + b"\0"}


def newer(files: dict[str, bytes]) -> dict[str, bytes]:
    record = json.loads(files["bundle/manifest.json"]) | {"version": 3}
    return files | {"bundle/manifest.json": json.dumps(record).encode()}


def lacking(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != "bundle/adapt.onnx"}


@pytest.mark.parametrize(
    ("change", "says"),
    [(damaged, "body.onnx is not the file"), (newer, "has format 3"), (lacking, "adapt.onnx is missing")],
)
def test_a_bundle_that_is_not_right_is_told(chromium, written, change, says):
    with served(change(serve.site(written("protonet")))) as address:
        page = Page(chromium, address)
        assert says in page.text("#failed") and page.value("document.querySelector('#desk').hidden")


def test_a_narrow_page_is_readable_and_does_not_scroll_sideways_in_light_or_dark(chromium, address):
    page, grounds = Page(chromium, address, width=360, fresh=True), []
    page.name("a name that is as long as a name can be, or more")
    page.draw(SHAPES["left"](0))
    page.click(".chip")
    page.settled(1)
    for scheme in ("light", "dark"):
        chosen = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # colours at once
        features = [{"name": name, "value": value} for name, value in chosen.items()]
        chromium.call("Emulation.setEmulatedMedia", features=features)
        assert page.value("document.documentElement.scrollWidth") <= 360
        assert page.value(FAINT) == []
        ground = page.value("getComputedStyle(document.body).backgroundColor")
        grounds.append(int(re.findall(r"\d+", ground)[0]))
    assert grounds[0] > 200 and grounds[1] < 60
    assert chromium.complaints() == []
    assert_named(page)


def assert_named(page: Page) -> None:
    """Everything that is used has a name in the browser's accessibility tree."""
    page.browser.call("Accessibility.enable")
    nodes = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    page.browser.call("Accessibility.disable")
    used = [node for node in nodes if node["role"]["value"] in ("button", "textbox", "radio", "slider", "img", "image")]
    named = [node["name"]["value"] for node in used if not node["ignored"]]
    assert len(named) > 12 and all(named), named
