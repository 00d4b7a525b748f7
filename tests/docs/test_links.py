"""Links of the repository's pages lead to files and headings that are there, and the site's navigation to all pages."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from tools.docs.links import links

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("[ept]*/README.md"))]
HEADING = re.compile(r"^#+ +(.+?)(?: *\{[^}]*\})?$", re.MULTILINE)
MADE = {"cli.md", "bundle-format.md", "profile-format.md"}  # while the site is built


def anchors(path: Path) -> set[str]:
    """Of every heading, as GitHub and Python-Markdown make them."""
    plain = (
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(path.read_text(encoding="utf-8"))
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:", "http://localhost")), target
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        if there.name in MADE and not there.exists():
            continue
        assert there.exists(), f"{page.relative_to(ROOT)}: {target} is nowhere"
        assert not anchor or anchor in anchors(there), f"{page.relative_to(ROOT)}: {target} has no such heading"


def test_the_navigation_has_every_page():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(_pages(yaml.safe_load(text)["nav"]))
    assert {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} <= named


def _pages(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from _pages([value] if isinstance(value, str) else value)
