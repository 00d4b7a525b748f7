"""What machine this is."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def cpu() -> str:
    """Model name as the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine() or "unknown"


def governor() -> str:
    """The frequency governor of the first core, "unknown" where the kernel shows none."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def slug(name: str) -> str:
    """A name fit for a file: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-") or "unknown"
