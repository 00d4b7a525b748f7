"""onnxruntime-web for the page: from the package, from the cache, or fetched from npm's registry once.

Which version, and the hashes of its package and of the files the page needs, stand in export/web/package.json. Nothing
is used whose hash is another.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemeta.config import default_cache
from edgemeta.errors import EdgemetaError
from edgemeta.files import resource, write_bytes

PACKAGE = "onnxruntime-web"
REGISTRY = "NPM_CONFIG_REGISTRY"  # what npm itself reads
FETCH_S = 900
MAX_PACKAGE_BYTES = 2**28


@dataclass(frozen=True)
class Pin:
    """The release the page is written for: `integrity` of the npm package, SHA-256 of each file that is taken of it."""

    version: str
    integrity: str
    files: Mapping[str, str]


def pin() -> Pin:
    record = json.loads((resource("export") / "web" / "package.json").read_text(encoding="utf-8"))
    return Pin(record["dependencies"][PACKAGE], record["runtime"]["integrity"], record["runtime"]["files"])


def files() -> dict[str, bytes]:
    """The runtime's files by name. What has to be fetched is kept in the cache."""
    if found := present():
        return found
    wanted = pin()
    print(f"fetching {PACKAGE} {wanted.version}, once", file=sys.stderr, flush=True)
    fetched = unpack(fetch(wanted.version), wanted)
    for name, data in fetched.items():
        write_bytes(_kept(wanted) / name, data)
    return fetched


def present() -> dict[str, bytes] | None:
    """The files where this machine has them: in the package, or in the cache."""
    wanted = pin()
    made = default_cache() / "web" / "node_modules" / PACKAGE / "dist"  # by `make web`
    places = (resource("export") / "web" / "ort", _kept(wanted), made)
    return next((found for folder in places if (found := read(folder, wanted))), None)


def _kept(wanted: Pin) -> Path:
    return default_cache() / "web" / f"{PACKAGE}-{wanted.version}"


def read(folder: Path, wanted: Pin) -> dict[str, bytes] | None:
    """The files in a folder; None unless all are there and are those of the pinned release."""
    try:
        found = {name: (folder / name).read_bytes() for name in wanted.files}
    except OSError:
        return None
    return found if _right(found, wanted) else None


def fetch(version: str) -> bytes:
    """The package from the registry that npm is set to, or where there is no npm, the one its variable names."""
    if npm := shutil.which("npm"):
        return _by_npm(npm, version)
    registry = os.environ.get(REGISTRY) or os.environ.get(REGISTRY.lower())
    if not registry:
        raise EdgemetaError(
            f"{PACKAGE} {version} is not on this machine, and there is no npm to fetch it; install npm, "
            f"or set {REGISTRY} to the address of a registry, and run the same command again"
        )
    return _by_https(registry, version)


def unpack(package: bytes, wanted: Pin) -> dict[str, bytes]:
    """The pinned files of an npm package, which is refused where a hash is another."""
    if f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}" != wanted.integrity:
        raise EdgemetaError(
            f"the {PACKAGE} {wanted.version} that was fetched is not the pinned one; try another registry"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in wanted.files}
            found = {name: member.read() for name, member in members.items() if member}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise EdgemetaError(f"{PACKAGE} {wanted.version} cannot be unpacked ({error}); try again") from error
    if not _right(found, wanted):
        raise EdgemetaError(f"files of {PACKAGE} {wanted.version} are not the pinned ones; correct package.json")
    return found


def _right(found: Mapping[str, bytes], wanted: Pin) -> bool:
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == dict(wanted.files)


def _by_npm(npm: str, version: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{version}", "--ignore-scripts", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgemetaError(f"npm could not be run: {error}; try again") from error
        packed = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            reason = " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"
            raise EdgemetaError(f"npm could not fetch {PACKAGE} {version} ({reason}); check the network and try again")
        return packed[0].read_bytes()


def _by_https(registry: str, version: str) -> bytes:
    if not registry.startswith("https://"):
        raise EdgemetaError(f"{REGISTRY} is {registry!r}; give an https:// address")
    try:
        with urllib.request.urlopen(
            f"{registry.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{version}.tgz", timeout=60
        ) as answer:
            package = answer.read(MAX_PACKAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise EdgemetaError(f"{PACKAGE} {version} could not be fetched ({error}); check {REGISTRY}") from error
    return package[:MAX_PACKAGE_BYTES]
