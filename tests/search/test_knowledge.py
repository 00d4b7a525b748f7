"""The policy file: what is written comes back, what is broken is refused, and a search begins with what it knows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgemeta.errors import BadData
from edgemeta.latency import profile
from edgemeta.latency.table import predictor
from edgemeta.search import knowledge, searcher
from edgemeta.search.jobs import DataSpec
from edgemeta.search.meta_searcher import MetaPolicy
from edgemeta.search.metapolicy import Sources, context_of, meta_train
from edgemeta.search.problem import Problem
from edgemeta.space.presets import edge, tiny
from edgemeta.types import Cost
from tests.blobs import blob_pool

SIZES = {"few": {"classes": 4, "examples": 20, "channels": 1, "resolution": 12}}
SIZES["many"] = SIZES["few"] | {"classes": 400}


def _log_macs(space, arch):
    return math.log(sum(op.macs for op in space.ops(arch)))


@pytest.fixture(scope="module")
def learned():
    """On the null device, the more work the better."""
    space, rng = tiny(), Random(0)
    archs = list(dict.fromkeys(space.sample(rng=rng) for _ in range(300)))
    log = np.array([_log_macs(space, arch) for arch in archs])
    scores = {name: 60 + 5 * (log - log.mean()) for name in SIZES}
    sources = Sources(np.array([arch.picks for arch in archs]), scores, SIZES, {"null": log, "root": log / 2})
    return meta_train(space, sources, seed=0, triples=300, steps=(30, 150, 50), lr=0.01)


@pytest.fixture
def path(learned, tmp_path):
    return knowledge.write(tmp_path / "policy.safetensors", learned, tiny(), {"seed": 0})


@pytest.fixture
def shipped(path, monkeypatch):
    monkeypatch.setattr(knowledge, "SHIPPED", path)
    knowledge.shipped.cache_clear()
    yield path
    knowledge.shipped.cache_clear()


@pytest.fixture
def problem(tmp_path):
    space, blobs = tiny(), blob_pool(classes=25, seed=0)
    np.savez(tmp_path / "blobs.npz", x=blobs.x.numpy(), y=np.repeat(np.arange(25), 10))
    data = DataSpec("npz", str(tmp_path / "blobs.npz"), str(tmp_path / "cache"), space.in_shape, 0)
    return Problem(space, predictor(profile.load("null")), Cost(), "protonet", data, tmp_path)


def test_what_is_written_comes_back(learned, path):
    found = knowledge.read(path)
    assert found.knowledge.tasks == learned.tasks and found.facts == {"seed": 0}
    assert found.knowledge.slots == learned.slots and (found.knowledge.anchors == learned.anchors).all()
    assert found.knowledge.centre == pytest.approx(learned.centre)
    assert all(torch.equal(found.knowledge.params[name], value) for name, value in learned.params.items())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _renamed(path: Path) -> None:
    tensors = load_file(path)
    tensors["policy/other"] = tensors.pop("policy/mix.bias")
    _save(path, tensors)


def _no_number(path: Path) -> None:
    tensors = load_file(path)
    tensors["policy/mix.bias"][0] = math.nan
    _save(path, tensors)


def _large(path: Path) -> None:
    path.write_bytes(bytes(knowledge.MAX_BYTES + 1))


def _nameless(path: Path) -> None:
    save_file(load_file(path), path)


def _save(path: Path, tensors: dict) -> None:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    save_file(tensors, path, metadata=header["__metadata__"])


@pytest.mark.parametrize(
    "harm, said",
    [
        (_cut, "is no policy file"),
        (_renamed, "policy/(other|mix.bias) is not that of such a policy"),
        (_no_number, "a parameter is not that of such a policy"),
        (_large, "bytes, a policy at most"),
        (_nameless, "is no policy file"),
        (Path.unlink, "is no policy file"),
    ],
)
def test_a_broken_file_is_refused_with_what_to_do(path, harm, said):
    harm(path)
    with pytest.raises(BadData, match=f"{said}.*; install edgemeta again"):
        knowledge.read(path)


def test_it_is_known_of_spaces_with_the_same_decisions_alone(shipped):
    assert knowledge.known(tiny((3, 20, 20))) is not None
    assert knowledge.known(edge()) is None


def test_a_search_begins_with_what_is_known(shipped, problem):
    """Under a cap, the first proposals fit more often than those of a policy that knows nothing."""
    rng = Random(1)
    costs = sorted(problem.bound(problem.space.sample(rng=rng)).latency_ms for _ in range(200))
    capped = Problem(**{**vars(problem), "cap": Cost(latency_ms=costs[40])})
    informed, blank = searcher("metapolicy", capped, seed=0, trials=9), MetaPolicy(problem.space, seed=0)
    fits = [sum(capped.bound(own.ask()).fits(capped.cap) for _ in range(60)) for own in (informed, blank)]
    assert fits[0] > fits[1] + 10


def test_a_problem_without_a_cap_is_a_loose_one(shipped, problem):
    known = knowledge.known(problem.space)
    assert known is not None
    asked = knowledge.triple(known, problem)
    assert math.isfinite(asked.cap_ms) and context_of(known, asked).isfinite().all()


def test_without_a_policy_for_the_space_it_starts_from_nothing(tmp_path, monkeypatch, problem):
    monkeypatch.setattr(knowledge, "SHIPPED", tmp_path / "none")
    knowledge.shipped.cache_clear()
    assert searcher("metapolicy", problem, seed=0, trials=9).ask().space == problem.space.name
    knowledge.shipped.cache_clear()
