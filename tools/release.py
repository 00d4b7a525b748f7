"""Whether what lies in `dist/` may be released.

    python tools/release.py --dist dist [--tag v1.2.3] [--constraints constraints.txt]

The description renders (twine), the sdist holds what the wheel is built of, the version is that of the tag and has an
entry of its own in the change log, and the wheel, alone in an empty environment, walks the whole road. Needs a network,
or a cache of pip's that has all of the constraints; exits with 1 and one line where something is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class NotReady(Exception):
    """Why there is no release yet."""


def versions(root: Path, dist: Path, tag: str | None) -> str:
    """The one version that code, files, tag and change log agree on; without a tag the change log may be ahead."""
    code = re.search(r'^__version__ = "([^"]+)"', (root / "edgemeta" / "__init__.py").read_text(), re.MULTILINE)
    if not code:
        raise NotReady("edgemeta/__init__.py holds no __version__")
    version = code[1]
    for pattern in (f"edgemeta-{version}-*.whl", f"edgemeta-{version}.tar.gz"):
        if len(list(dist.glob(pattern))) != 1:
            raise NotReady(f"{dist} holds no single {pattern}; empty it and build again")
    if tag is None:
        return version
    if tag.removeprefix("v") != version:
        raise NotReady(f"the tag is {tag}, and the code {version}")
    if not re.search(rf"^## \[?{re.escape(version)}\]?", (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise NotReady(f"CHANGELOG.md has no section {version}")
    return version


def described(dist: Path, version: str) -> None:
    """Both files have metadata that an index takes."""
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.glob(f"edgemeta-{version}*")))


def source(dist: Path, version: str) -> None:
    """The sdist holds what a build needs."""
    with tarfile.open(dist / f"edgemeta-{version}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "edgemeta/cli.py",
        "export/README.md",
        "profiles/null.json",
    ):
        if needed not in names:
            raise NotReady(f"the sdist lacks {needed}")


def installed(dist: Path, version: str, constraints: Path | None) -> None:
    """In an empty environment the wheel tells its version and walks the road."""
    (wheel,) = dist.glob(f"edgemeta-{version}-*.whl")
    with tempfile.TemporaryDirectory() as place:
        venv.create(Path(place) / "env", with_pip=True)
        bin_ = Path(place) / "env" / "bin"
        limits = ["-c", str(constraints.resolve())] if constraints else []
        install: list[str | Path] = [
            bin_ / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *limits,
        ]
        _run(*install, "torch", cwd=place)  # alone, so that the pin decides which build is taken
        _run(*install, wheel.resolve(), cwd=place)
        told = _run(bin_ / "edgemeta", "--version", cwd=place)
        if told.split() != ["edgemeta", version]:
            raise NotReady(f"the installed wheel says {told!r}, not {version}")
        _run(bin_ / "edgemeta", "demo", "--quick", "--no-progress", "--run", "demo", cwd=place)
        if not (Path(place) / "demo" / "report.html").exists():
            raise NotReady("the demo of the installed wheel left no report")


def _run(*command: str | Path, cwd: str | Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotReady(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--dist", type=Path, default=ROOT / "dist")
    options.add_argument("--tag", help="what is released, such as v1.2.3")
    options.add_argument("--constraints", type=Path)
    asked = options.parse_args(arguments)
    try:
        version = versions(ROOT, asked.dist, asked.tag)
        described(asked.dist, version)
        source(asked.dist, version)
        installed(asked.dist, version, asked.constraints)
    except NotReady as why:
        print(f"not ready: {why}", file=sys.stderr)
        return 1
    print(f"edgemeta {version} may be released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
