"""Where onnxruntime-web comes from, and that nothing but the pinned release is used."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import re
import shutil
import tarfile
import threading

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.files import resource
from edgemeta.stages import web_runtime
from edgemeta.stages.web_runtime import Pin

FILES = {"a.mjs": b"export {};", "a.wasm": b"\0asm"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(files: dict[str, bytes]) -> bytes:
    """An npm package."""
    buffer = io.BytesIO()
    manifest = {"name": web_runtime.PACKAGE, "version": "9.9.9"}
    everything = {"package.json": json.dumps(manifest).encode()} | {
        f"dist/{name}": data for name, data in files.items()
    }
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in everything.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def integrity(package: bytes) -> str:
    return f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}"


@pytest.fixture(scope="module")
def package() -> bytes:
    return packed(FILES | {"other.js": b"1"})


@pytest.fixture(scope="module")
def wanted(package) -> Pin:
    return Pin("9.9.9", integrity(package), {name: sha256(data) for name, data in FILES.items()})


def test_the_pin_is_of_one_release():
    wanted = web_runtime.pin()
    assert re.fullmatch(r"\d+\.\d+\.\d+", wanted.version) and re.fullmatch(r"sha512-[\w+/]{86}==", wanted.integrity)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in wanted.files.values())
    runner = (resource("export") / "web" / "edgemeta_profile.mjs").read_text()
    assert f"'{wanted.version}'" in runner  # profiles are taken with the same release


def test_a_package_gives_the_files_that_are_wanted(package, wanted):
    assert web_runtime.unpack(package, wanted) == FILES


def test_a_changed_package_is_refused(package, wanted):
    with pytest.raises(EdgemetaError, match="is not the pinned one"):
        web_runtime.unpack(package[:-1] + b"\1", wanted)


@pytest.mark.parametrize("files", [{"a.mjs": b"export {};"}, FILES | {"a.wasm": b"other"}], ids=["missing", "other"])
def test_files_that_are_not_the_pinned_ones_are_refused(wanted, files):
    package = packed(files)
    with pytest.raises(EdgemetaError, match="cannot be unpacked|are not the pinned ones"):
        web_runtime.unpack(package, Pin("9.9.9", integrity(package), wanted.files))


def test_a_folder_is_used_only_where_every_file_is_right(tmp_path, wanted):
    assert web_runtime.read(tmp_path, wanted) is None
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    assert web_runtime.read(tmp_path, wanted) == FILES
    (tmp_path / "a.wasm").write_bytes(b"old")
    assert web_runtime.read(tmp_path, wanted) is None


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        (None, "install npm, or set NPM_CONFIG_REGISTRY"),
        ("http://localhost:1", "give an https:// address"),
        ("https://localhost:1", "could not be fetched .*; check NPM_CONFIG_REGISTRY"),
    ],
)
def test_without_npm_one_line_says_what_to_do(monkeypatch, tmp_path, registry, says):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    if registry:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
    with pytest.raises(EdgemetaError, match=says):
        web_runtime.fetch("9.9.9")


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here; `make system-deps` installs it")
def test_npm_fetches_from_the_registry_it_is_set_to(monkeypatch, tmp_path, package):
    """The real npm, and a registry of our own."""

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = f"http://localhost:{self.server.server_port}/tarball"
            about = {"name": web_runtime.PACKAGE, "version": "9.9.9", "dist": {"tarball": where}}
            record = {"name": web_runtime.PACKAGE, "dist-tags": {"latest": "9.9.9"}, "versions": {"9.9.9": about}}
            body = package if self.path == "/tarball" else json.dumps(record).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *told: object) -> None:
            pass

    with http.server.HTTPServer(("localhost", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://localhost:{server.server_port}")
        monkeypatch.setenv("npm_config_cache", str(tmp_path))
        assert web_runtime.fetch("9.9.9") == package
        with pytest.raises(EdgemetaError, match="npm could not fetch onnxruntime-web 1.2.3"):
            web_runtime.fetch("1.2.3")
        server.shutdown()
