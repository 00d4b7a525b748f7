"""The site as it is read: from any static server, without a network, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")

from edgemeta import cli
from tests.report import browser
from tools.docs import hook, reference

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = ("index.html", "web.html", "cli.html", "api/records.html", "bundle-format.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built strictly: every warning is an error."""
    if not os.environ.get("EDGEMETA_DOCS"):
        pytest.skip("the site takes a minute to build; set EDGEMETA_DOCS=all, as `make docs` does")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder], cwd=ROOT,
                          env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    """Of a static server: browsers start the search's worker for no page of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def page(site):
    if not browser.BINARY:
        pytest.skip("no Chromium here; `make system-deps` installs it")
    with browser.browser() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_is_readable_everywhere(page, address, name, width):
    grounds = []
    for dark in (False, True):
        page.open("about:blank", width=width, dark=dark)
        page.call("Storage.clearDataForOrigin", origin=address, storageTypes="local_storage")  # a reader's own choice
        page.open(f"{address}/{name}", width=width, dark=dark)
        assert page.complaints() == []
        assert page.value("document.documentElement.scrollWidth") <= width
        grounds.append(page.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_search_finds_a_page(page, address):
    page.open(f"{address}/index.html", width=1280)
    found = """new Promise(async done => {
        const field = document.querySelector('input.md-search__input');
        document.querySelector('#__search').click(); field.focus(); field.value = 'microcontroller';
        for (const kind of ['keyup', 'input']) field.dispatchEvent(new Event(kind, {bubbles: true}));
        for (let i = 0; i < 200; i++) {
            const links = [...document.querySelectorAll('.md-search-result__link')].map(a => a.getAttribute('href'));
            if (links.length) return done(links.join(' '));
            await new Promise(r => setTimeout(r, 50));
        }
        done('nothing');
    })"""
    assert "microcontroller.html" in page.value(found)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'src="http' not in text and 'rel="stylesheet" href="http' not in text, path.name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_the_tests_alone_need_is_not_shown(site):
    comment = "<!--- invisible-code-block"
    assert not [path.name for path in site.rglob("*.html") if comment in path.read_text(encoding="utf-8")]


def test_every_setting_stands_on_the_page_of_the_command_line():
    text = reference.page()
    for name, config in cli.COMMANDS.items():
        section = text.split(f"{{ #{'profile-import' if name == 'import' else name} }}")[1].split("\n## ")[0]
        for setting in cli.config.names(config):
            assert f"`{cli.flag(setting)}`" in section or f"`{setting.upper()}`" in section


@pytest.mark.parametrize(
    ("link", "source", "page", "led"),
    [
        ("[a](../export/README.md#b)", "docs/data.md", "data.md", "[a](bundle-format.md#b)"),
        ("![a](docs/x.png)", "README.zh-CN.md", "zh-CN.md", "![a](x.png)"),
        ("[a](../tools/bench/results)", "docs/data.md", "data.md", "a"),
        ("[a](../../CONTRIBUTING.md)", "docs/api/index.md", "api/index.md", "[a](../contributing.md)"),
        ("[a](https://b.c/d.md) [e](#f)", "docs/data.md", "data.md", "[a](https://b.c/d.md) [e](#f)"),
        ("```sh\n[a](b)\n```\n", "README.md", "index.md", "```sh\n[a](b)\n```\n"),
    ],
)
def test_links_end_at_the_page_that_shows_the_file(link, source, page, led):
    assert hook.led(link, source, page) == led


def test_examples_of_docstrings_become_code():
    pytest.importorskip("griffe", reason="griffe is not installed: pip install -e '.[docs]'")
    from tools.docs import doctests

    text = "What it does.\n\n>>> f(1)\n[('a', (1,))]\n>>> g()\n2\n\nMore.\n"
    assert doctests.fenced(text) == "What it does.\n\n```pycon\n>>> f(1)\n[('a', (1,))]\n>>> g()\n2\n```\n\nMore.\n"
