"""What machine this is, in the words of export/python/edgemeta_profile.py."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def cpu() -> str:
    """The board's name where there is a device tree (Raspberry Pi and its like), else the processor's."""
    found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    named = _text("/proc/device-tree/model") or (found.group(1).strip() if found else "")
    return named or platform.processor() or platform.machine() or "unknown"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0 \t\n")
    except OSError:
        return ""


def slug(name: str) -> str:
    """A name fit for a file: lower case, digits and dashes.

    >>> slug("Intel(R) Xeon(R) CPU @ 2.20GHz")
    'intel-xeon-cpu-2-20ghz'
    """
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-") or "unknown"
