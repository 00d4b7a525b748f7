"""Every learner in a browser's wasm: the page's own modules give torch's answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgemeta import files
from edgemeta.learners import LEARNERS
from edgemeta.stages import serve, web_runtime
from tests.export.web_page import served
from tests.golden import SCALE, answers
from tests.report.browser import BINARY, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="no chromium here; `make system-deps` installs it"),
    pytest.mark.skipif(web_runtime.present() is None, reason="no onnxruntime-web here; `make web` fetches it"),
]
ASK = """(async () => {
  const [ort, { below, load }, { create }] = await Promise.all(
    ['/ort/ort.wasm.min.mjs', '/bundle.mjs', '/learner.mjs'].map((name) => import(name)));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: new URL('/ort/', location.href).href });
  const { shots, labels, queries } = await (await fetch('/task.json')).json();
  const learner = await create(ort, await load(below(new URL('/%s/', location.href))));
  await learner.keep(shots.map((x, id) => ({ id, x: Float32Array.from(x) })));
  await learner.adapt(labels.map((_, id) => id), labels, Math.max(...labels) + 1);
  const logits = [];
  for (const x of queries) logits.push((await learner.classify(Float32Array.from(x))).logits);
  return logits;
})()"""


def test_every_learner_answers_as_torch(bundles, draw):
    shots = [(name, image) for name, several in draw(2).items() for image in several]
    queries = sum(draw(1, seed=1).values(), [])
    page = files.resource("export") / "web" / "page"
    contents = {name: (page / name).read_bytes() for name in ("bundle.mjs", "learner.mjs")}
    contents |= {f"ort/{name}": data for name, data in (web_runtime.present() or {}).items()}
    contents[serve.INDEX] = b"<!doctype html><title>learners</title>"
    cases, names = {learner: bundles(learner) for learner in LEARNERS}, [name for name, _ in shots]
    for learner, case in cases.items():
        contents |= {f"{learner}/{path.name}": path.read_bytes() for path in case.folder.glob("*.onnx")}
        contents[f"{learner}/manifest.json"] = (case.folder / "manifest.json").read_bytes()
    known = list(dict.fromkeys(names))
    task = {"shots": [_flat(x) for _, x in shots], "labels": [known.index(name) for name in names]}
    contents["task.json"] = json.dumps(task | {"queries": [_flat(x) for x in queries]}).encode()
    with browser() as opened, served(contents) as address:
        opened.open(address, width=800)
        for learner, case in cases.items():
            _, want = answers(case.learner, case.slow, shots, queries)
            got = opened.value(ASK % learner)
            assert got is not None, (learner, opened.complaints())
            assert np.abs(np.array(got) - want).max() <= 1e-4 * max(1.0, np.abs(want).max()), learner


def _flat(image: np.ndarray) -> list[float]:
    return (image * SCALE).ravel().tolist()
