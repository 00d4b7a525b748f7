"""What commands tell: of how many, under which caps, and which latency is which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.stages import telling
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Cost

TIMED = {"threads": 1, "runtime": "onnxruntime", "device": "a board", "measured_on": "2026-01-02"}
TIMED |= {f"{name}_ms": {"median_ms": ms, "iqr_ms": 0.0, "n": 9} for name, ms in
          {"body": 0.5, "classify": 0.25, "adapt": 3.0}.items()}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A bundle whose latency, 0.75 ms, is under its cap, and whose graphs are over theirs."""
    space = tiny()
    learner = LEARNERS["protonet"](build(space.ops(space.arch([{"width": 8}, {"width": 8, "depth": 2}]))))
    slow = learner.init(rng=torch.Generator().manual_seed(1))
    costs = {"predicted": Cost(0.6, 9.0, 8.0), "cap": Cost(latency_ms=1.0, flash_kib=1.0)}
    made = bundle.write(tmp_path_factory.mktemp("told") / "bundle", slow=slow, learner=learner, facts={}, **costs)
    bundle.update_facts(made, {"picks": [0]}, measured=TIMED)
    return made


def noted(score: float, picks: int) -> dict:
    return {"picks": [picks], "score": score, "fidelity": 3, "cost": Cost(0.6, 9.0, 8.0).to_json()}


def searched(root: Path, networks: int) -> RunFolder:
    winner = noted(0.5, 0) | {"measured": None, "how": "predicted only"}
    note = {"config": {}, "command": "", "data": "", "device": "null", "refused": [], "infeasible": [], "beside": []}
    note |= {"ranking": [noted(0.5, i) for i in range(networks)], "winner": winner}
    (root / "search.json").write_text(json.dumps(note))
    return RunFolder(root)


@pytest.mark.parametrize(("networks", "says"), [(5, False), (6, True)])
def test_a_cut_ranking_says_of_how_many(tmp_path, networks, says):
    told = telling.search(searched(tmp_path, networks))
    assert (f"5 of {networks} networks" in told.text) == says and len(told.facts["ranking"]) == networks


def test_every_cap_is_told_whether_it_holds(folder):
    shown = list(telling.costs_text(bundle.read(folder)))
    latency, _, flash = (line.split("  ") for line in shown[0].splitlines()[2:])
    assert latency[-1].strip() == "holds" and flash[-1].strip() == "broken"
    assert "body alone 0.5 ms + answer from its features 0.25 ms" in shown[1]
    found = {row["cost"]: row for row in telling.costs(bundle.read(folder))}
    assert found["latency_ms"] == {"cost": "latency_ms", "predicted": 0.6, "measured": 0.75, "cap": 1.0, "holds": True}
    assert found["flash_kib"]["holds"] is False and found["ram_kib"]["holds"] is None
    assert "flash, weights and graphs" in telling.exported(folder).text and "broken" in telling.exported(folder).text


def test_the_latency_chosen_is_that_of_the_bundle(folder, tmp_path):
    """One network, one measured latency: the last one, which the manifest keeps."""
    run = searched(tmp_path, 1)
    run.bundle.symlink_to(folder)
    told = telling.search(run)
    assert "chosen 0: latency 0.75 ms" in told.text and told.facts["chosen"]["latency_ms"] == 0.75
    assert told.facts["bundle"]["inference_ms"] == 0.75 and told.facts["bundle"]["predicted_ms"] == 0.6


def test_bench_names_every_latency(folder):
    told = telling.bench(bundle.read(folder), {**TIMED, "body_ms": {"median_ms": 1.0, "iqr_ms": 0.0, "n": 9}})
    assert "measured now 1.25 ms, measured on 2026-01-02 0.75 ms, predicted 0.6 ms" in told.text
    assert told.text.endswith("  broken") and told.facts["holds"] is False and told.facts["manifest_ms"] == 0.75
    images = {name: value for name, value in TIMED.items() if name != "body_ms"}  # of a learner that changes the body
    assert "(classify, which takes the image): measured now 0.25 ms" in telling.bench(bundle.read(folder), images).text


def test_bench_does_not_hold_this_machine_against_the_cap_of_another(folder):
    manifest = bundle.update_facts(folder, {"device": "cortex-m4f-168mhz"})
    told = telling.bench(manifest, {**TIMED, "body_ms": {"median_ms": 1.0, "iqr_ms": 0.0, "n": 9}})
    assert told.text.endswith("ms on cortex-m4f-168mhz: this machine does not tell whether that holds")
    assert told.facts["holds"] is None and told.facts["cap_ms"] == 1.0
