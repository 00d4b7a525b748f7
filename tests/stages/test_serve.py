"""The page's server: these files, to this machine, under its own names, and nothing else."""

from __future__ import annotations

import http.client
import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from edgemeta import cli, files
from edgemeta.config import Serve, make
from edgemeta.errors import EdgemetaError
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, card
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.stages import serve, web_runtime

needs_runtime = pytest.mark.skipif(
    web_runtime.present() is None, reason="no onnxruntime-web here; `make web` fetches it"
)
PAGE = {"index.html": b"<p>page", "app.mjs": b"1", "ort/ort.wasm": b"\0asm", "bundle/manifest.json": b"{}"}
PAGE |= {"style.css": b"p{}", "bundle/body.onnx": b"\x08"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    space = tiny()
    learner = LEARNERS["protonet"](build(space.ops(space.arch([{"width": 8}, {"width": 8, "depth": 2}]))))
    slow = learner.init(rng=torch.Generator().manual_seed(1))
    return bundle.write(tmp_path_factory.mktemp("serve") / "bundle", slow=slow, learner=learner, facts={})


@contextmanager
def serving(contents):
    with socket.socket() as probe:
        probe.bind((serve.LOOPBACK, 0))
        port = probe.getsockname()[1]
    with serve.server(contents, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page():
    with serving(PAGE) as server:
        yield server


def ask(server, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.request(method, path, headers={"Host": f"localhost:{server.server_port}"} | headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_it_listens_on_loopback_alone(page):
    assert page.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?from=link", "text/html; charset=utf-8"),
        ("/app.mjs", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/ort/ort.wasm", "application/wasm"),
        ("/bundle/manifest.json", "application/json"),
        ("/bundle/body.onnx", "application/octet-stream"),
    ],
)
def test_each_file_has_its_type_and_the_page_is_isolated(page, path, kind):
    answer, body = ask(page, path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert body == PAGE[path.split("?")[0].strip("/") or "index.html"]
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/bundle", "/bundle/", "/ort/", "/../Makefile", "/%2e%2e/Makefile", "//etc/passwd", "/x"]
)
def test_nothing_else_is_served_and_no_folder_is_listed(page, path):
    answer, body = ask(page, path)
    assert (answer.status, body) == (404, b"no such file\n")


@pytest.mark.parametrize("host", ["evil.example:{}", "localhost", "localhost:1", "127.0.0.1.evil:{}", ""])
def test_another_name_for_this_machine_is_refused(page, host):
    answer, body = ask(page, "/", Host=host.format(page.server_port))
    assert answer.status == 403 and b"page>" not in body


@pytest.mark.parametrize("host", ["localhost:{}", "LocalHost:{}", "127.0.0.1:{}", "[::1]:{}"])
def test_its_own_names_are_served(page, host):
    assert ask(page, "/", Host=host.format(page.server_port))[0].status == 200


def test_what_has_not_changed_is_not_sent_again(page):
    tag = ask(page, "/app.mjs")[0].headers["ETag"]
    answer, body = ask(page, "/app.mjs", **{"If-None-Match": tag})
    assert (answer.status, body) == (304, b"")
    head, body = ask(page, "/app.mjs", "HEAD")
    assert (head.status, head.headers["Content-Length"], body) == (200, "1", b"")
    assert ask(page, "/", "POST")[0].status == 501


def test_a_taken_port_is_answered_with_a_free_one(page):
    with pytest.raises(EdgemetaError, match=f"port {page.server_port} is taken; ") as refused:
        serve.server(PAGE, page.server_port)
    with serve.server(PAGE, int(str(refused.value).split("--port ")[1])) as other:
        assert other.server_port != page.server_port


# The whole site


@needs_runtime
def test_the_site_is_page_runtime_and_bundle(folder):
    contents = serve.site(folder)
    page = {path.name for path in (files.resource("export") / "web" / "page").iterdir()}
    runtime = {f"ort/{name}" for name in web_runtime.pin().files}
    bundled = {f"bundle/{path.name}" for path in folder.iterdir()} - {f"bundle/{card.NAME}"}  # that is for people
    assert set(contents) == page | runtime | bundled
    assert contents["bundle/body.onnx"] == (folder / "body.onnx").read_bytes()


@needs_runtime
def test_the_folder_is_the_same_and_is_replaced_by_itself_alone(folder, tmp_path):
    out = tmp_path / "web"
    for _ in range(2):
        assert "open it through any static web server" in str(serve.run(make(Serve, {"bundle": folder, "out": out})))
    written = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert written == serve.site(folder)
    assert bundle.read(out / "bundle").id == bundle.read(folder).id
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("mine")
    with pytest.raises(EdgemetaError, match="is not a page of ours; move it"):
        serve.write(PAGE, tmp_path / "other")
    assert (tmp_path / "other" / "index.html").read_text() == "mine"


@pytest.mark.parametrize("damage", ["body.onnx", "manifest.json", None])
def test_a_damaged_bundle_is_told_in_one_line(folder, tmp_path, capsys, damage):
    broken = tmp_path / "broken"
    if damage:
        data = bytearray((shutil.copytree(folder, broken) / damage).read_bytes())
        data[len(data) // 2] ^= 1
        (broken / damage).write_bytes(data)
    assert cli.main(["serve", str(broken)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and str(broken) in shown and "Traceback" not in shown


@pytest.mark.parametrize(("port", "says"), [("0", "should be greater than 0"), ("65536", "should be below 65536")])
def test_a_port_that_is_none(capsys, tmp_path, port, says):
    assert cli.main(["serve", str(tmp_path), "--port", port]) == 2
    assert says in capsys.readouterr().err
