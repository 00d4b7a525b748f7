"""The page that teaches a bundle in a browser: served on loopback, or written as a folder for any static server."""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

from edgemeta import config as configs
from edgemeta.errors import EdgemetaError
from edgemeta.files import resource
from edgemeta.lowering import bundle, manifest, replace
from edgemeta.ranges import PORTS
from edgemeta.stages import web_runtime
from edgemeta.terminal import Told, told

LOOPBACK = "127.0.0.1"
NAMES = ("localhost", LOOPBACK, "[::1]")  # what a browser on this machine may call us: another name is a rebound one
NEAR = 50  # ports that are tried before one is named instead of a taken one
INDEX = "index.html"
MARK = b'content="edgemeta serve"'  # in every index.html of ours
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
# Isolation is what lets a page read the clock to microseconds, which is what it tells.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Site = Mapping[str, bytes]  # path below the page -> contents


def run(config: configs.Serve) -> Told:
    """Write the folder, or serve until Ctrl-C."""
    if config.out:
        page = write(site(config.bundle), config.out)
        return told(f"page: {page}; open it through any static web server, or on localhost", {"page": page})
    with server(site(config.bundle), config.port) as serving:
        url = f"http://localhost:{serving.server_port}"
        print(f"teach it at {url} (Ctrl-C ends)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            return told("\nstopped; what was taught stays in the browser", {"served": url})
    return Told()


def site(folder: Path) -> dict[str, bytes]:
    """Everything the page is made of, read once: a bundle that is replaced meanwhile does not mix with this one."""
    folder = Path(folder)
    names = [manifest.NAME, *bundle.read(folder).files]
    taught = {f"bundle/{name}": (folder / name).read_bytes() for name in names}
    runtime = {f"ort/{name}": data for name, data in web_runtime.files().items()}
    page = resource("export") / "web" / "page"
    return {path.name: path.read_bytes() for path in sorted(page.iterdir()) if path.suffix in KINDS} | runtime | taught


def write(contents: Site, target: Path) -> Path:
    """The page as a folder; a page of ours that stands there is replaced in one move, nothing else is."""
    old = target / INDEX
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or _ours(old))):
        raise EdgemetaError(f"{target} is there and is not a page of ours; move it or choose another folder")
    return replace.folder(target, contents)


def server(contents: Site, port: int) -> ThreadingHTTPServer:
    """A server of exactly these files, on loopback; `serve_forever` starts it."""
    try:
        return _Server((LOOPBACK, port), _handler(contents, {f"{name}:{port}" for name in NAMES}))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise EdgemetaError(f"cannot serve on port {port}: {error.strerror}; choose another --port") from error
        why = "is taken" if error.errno == errno.EADDRINUSE else "is not allowed to this user"
        free = _free(max(port + 1, 1024))
        raise EdgemetaError(f"port {port} {why}; {free} is free: --port {free}") from error


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of an answer is no error; others are told as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler(contents: Site, hosts: set[str]) -> type[BaseHTTPRequestHandler]:
    tags = {path: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for path, data in contents.items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version, server_version, sys_version, timeout = "HTTP/1.1", "edgemeta", "", 60

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/") or INDEX
            if self.headers.get("Host", "").lower() not in hosts:
                self._answer(HTTPStatus.FORBIDDEN, b"this page is for localhost\n")
            elif path not in contents:
                self._answer(HTTPStatus.NOT_FOUND, b"no such file\n")
            elif self.headers.get("If-None-Match") == tags[path]:
                self._answer(HTTPStatus.NOT_MODIFIED, tag=tags[path])
            else:
                self._answer(HTTPStatus.OK, contents[path], kind=_kind(path), tag=tags[path])

        do_HEAD = do_GET

        def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain", tag: str = "") -> None:
            self.send_response(status)
            about = {"Content-Type": kind, "Content-Length": str(len(body))}
            headers = HEADERS | (about if status != HTTPStatus.NOT_MODIFIED else {}) | ({"ETag": tag} if tag else {})
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *told: object) -> None:
            """Nothing: a page that was opened is no news."""

    return Handler


def _kind(path: str) -> str:
    return KINDS.get(PurePosixPath(path).suffix, "application/octet-stream")


def _free(start: int) -> int:
    """A port near `start` that nobody listens on."""
    for port in range(start, min(start + NEAR, PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
                return port
            except OSError:
                continue
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _ours(index: Path) -> bool:
    try:
        return MARK in index.read_bytes()
    except OSError:
        return False
