"""The page as it is read: by mouse, finger and keyboard, in the light and in the dark, and on paper."""

import base64
import re

import pytest

from edgemeta.report import page
from edgemeta.report.plots import percent
from edgemeta.report.story import Story
from tests.report.browser import FAINT, Browser
from tests.report.story_example import example

STORY = example()

SHOWN = "document.querySelector('#tip:not([hidden])')?.textContent ?? ''"
STILL = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"  # scrolling hides the label
SMOOTHLESS = "document.documentElement.style.scrollBehavior = 'auto'"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return page.write(tmp_path_factory.mktemp("page") / "report.html", STORY)


def middle(chromium: Browser, selector: str) -> tuple[float, float]:
    """Where an element is, once it has been scrolled to."""
    chromium.value(
        f"document.querySelector('{selector}').scrollIntoView({{block: 'center', behavior: 'instant'}});{STILL}"
    )
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    x, y = chromium.value(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
    return x, y


def press(chromium: Browser, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        given = {"text": text} if text and kind == "keyDown" else {}
        chromium.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **given)
    chromium.value(STILL)


def assert_told(tip: str, story: Story = STORY) -> None:
    """Network, accuracy with its interval, latency with its unit: of the network that was chosen."""
    chosen = max((t for t in story.trials if t.arch == story.winner.arch), key=lambda t: t.fidelity)
    assert tip.startswith(str(chosen.arch)) and percent(chosen.score, chosen.score_ci) in tip
    assert f"predicted latency {chosen.cost.latency_ms:.4g} ms, RAM {chosen.cost.ram_kib:.4g} KiB" in tip


def test_the_mouse_shows_the_values_of_a_point(chromium, written):
    chromium.open(written, width=1200)
    x, y = middle(chromium, "#front .wide .dot.first")
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert_told(chromium.value(SHOWN))
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert chromium.value(SHOWN) == ""


def test_a_finger_beside_a_point_means_it(chromium, tmp_path):
    sparse = example(count=3)
    chromium.open(page.write(tmp_path / "report.html", sparse), width=360)
    x, y = middle(chromium, "#front .narrow .dot.first")
    for beside in (0, 9):
        chromium.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x + 0.1, "y": y - beside}])
        chromium.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert_told(chromium.value(SHOWN), sparse)


def test_the_keyboard_enters_a_drawing_once_and_walks_its_points(chromium, written):
    chromium.open(written, width=1200)
    chromium.value(SMOOTHLESS)
    stops = "[...document.querySelectorAll('#front .wide svg')].map(s => s.querySelectorAll('[tabindex=\"0\"]').length)"
    assert set(chromium.value(stops)) == {1}
    chromium.value("[...document.querySelectorAll('#summary a')].at(-1).focus()")
    press(chromium, "Tab", 9)
    assert_told(chromium.value(SHOWN))
    told, places = [], []
    for _ in range(3):
        press(chromium, "ArrowLeft", 37)
        told.append(chromium.value(SHOWN))
        places.append(chromium.value("(b => b.x + b.width / 2)(document.activeElement.getBoundingClientRect())"))
    assert len(set(told)) == 3 and all(re.search(r"latency [\d.]+ ms", tip) for tip in told)
    assert places == sorted(places, reverse=True)
    press(chromium, "Escape", 27)
    assert chromium.value(SHOWN) == ""
    press(chromium, "Tab", 9)
    assert chromium.value("document.activeElement.localName") == "summary"
    press(chromium, "Enter", 13, "\r")
    assert chromium.value("document.activeElement.closest('details').open")
    assert chromium.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_word_is_faint(chromium, written, width, dark):
    chromium.open(written, width=width, dark=dark)
    assert chromium.value(FAINT) == []
    chromium.value("document.querySelector('h1').style.color = '#777'")
    assert [words for words, _ in chromium.value(FAINT)] == [chromium.value("document.querySelector('h1').textContent")]


def test_paper_is_white_even_where_the_screen_is_dark(chromium, written):
    chromium.open(written, width=1200, dark=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    chromium.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
    ink = chromium.value("getComputedStyle(document.querySelector('h1')).color")
    chromium.call("Emulation.setEmulatedMedia", media="", features=[])
    assert max(map(int, re.findall(r"\d+", ink))) < 60
    printed = base64.b64decode(chromium.call("Page.printToPDF")["data"])
    assert printed.startswith(b"%PDF-")
