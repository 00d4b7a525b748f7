"""The SHA-256 of every wheel that `constraints.txt` pins, into `tools/requirements.lock`: Linux, x86-64, Python 3.11.

    python tools/make_lock.py

Whoever wants to be sure that no wheel has been exchanged installs by these, with nothing resolved anew:

    pip install --require-hashes --no-deps -r tools/requirements.lock && pip install --no-deps .

A wheel that pip takes from elsewhere, such as another build of torch, is refused by its hash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "tools" / "requirements.lock"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        chosen = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet"]
        asked = ["install", *chosen, "--report", str(report), "-r", str(ROOT / "constraints.txt")]
        subprocess.run([sys.executable, "-m", "pip", *asked], check=True)
        LOCK.write_text(locked(json.loads(report.read_text())))
    print(f"written to {LOCK}")
    return 0


def locked(report: dict) -> str:
    """Lines of a requirements file from pip's report on what it would install."""
    lines = ["# Made by tools/make_lock.py from constraints.txt; Linux, x86-64, Python 3.11."]
    for entry in sorted(report["install"], key=lambda entry: entry["metadata"]["name"].lower()):
        known, digest = entry["metadata"], entry["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{known['name']}=={known['version']} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
