"""Links of the repository's pages; run as a program, it asks whether those that lead elsewhere still answer.

    python tools/docs/links.py

It needs a network, so no test and no build runs it. It prints what does not answer, and exits with 1 where that is so.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)[ \t]*$|(?P<tick>`+).+?(?P=tick)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)|(?:src|href)=\"(?P<html>[^\"]+)\"")
TIMEOUT_S = 20
REFUSED = (403, 405, 429)  # by servers that are there and do not like programs


def links(text: str) -> Iterator[str]:
    """Targets of links and images, those in code left out."""
    for found in LINK.finditer(CODE.sub("", text)):
        yield found["target"] or found["html"]


def dead(address: str) -> str:
    """Why it does not answer; empty where it does."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in REFUSED else f"{error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(error)


def main() -> int:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    found = {target: page for page in pages for target in links(page.read_text(encoding="utf-8"))}
    outside = {
        target: page for target, page in found.items() if target.startswith("http") and "//localhost" not in target
    }
    wrong = [(page, target, why) for target, page in sorted(outside.items()) if (why := dead(target))]
    for page, target, why in wrong:
        print(f"{page.relative_to(ROOT)}: {target}: {why}")
    print(f"{len(outside)} links, {len(wrong)} do not answer")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
