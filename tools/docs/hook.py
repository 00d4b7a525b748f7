"""What MkDocs asks while it builds the site: pages made of other files, and links that leave `docs/`.

The command line's page is written from `edgemeta.cli`, so it cannot go stale. Pages of other folders are shown where
they belong in the navigation, and links of any page to any file of the repository end at the page that shows it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

from tools.docs import reference

ROOT = Path(__file__).resolve().parents[2]
# Files outside of docs/ -> the page that shows them.
SHOWN = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "export/README.md": "bundle-format.md",
    "profiles/README.md": "profile-format.md",
}
_OWN = ("README.md",)  # of which the site has another one
_FROM = {page: path for path, page in SHOWN.items() if path not in _OWN}
_COMMENT = re.compile(r"^[ \t]*<!--+ *(?:invisible-code-block|skip):.*?--+>\n", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    made = {page: (ROOT / path).read_text(encoding="utf-8") for page, path in _FROM.items() if (ROOT / path).exists()}
    for page, text in (made | {"cli.md": reference.page()}).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """The page without what its tests alone need, its links led to pages of the site."""
    source = _FROM.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return led(_COMMENT.sub("", text), source, page.file.src_uri)


def led(text: str, source: str, page: str) -> str:
    """Links of a file of the repository, relative to the page of the site that shows it; code is left alone."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(lambda found: _link(found, source, page), text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(lambda found: _link(found, source, page), text[end:])])


def _link(found: re.Match[str], source: str, page: str) -> str:
    path, mark, anchor = found["target"].partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return found[0]
    target = normpath(str(PurePosixPath(source).parent / path))
    inside = SHOWN.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    if inside is None:
        return found["text"]  # a file that no page shows
    there = relpath(inside, str(PurePosixPath(page).parent))
    return f"{found['image']}[{found['text']}]({there}{mark}{anchor})"
