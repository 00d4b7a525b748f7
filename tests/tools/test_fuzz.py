"""Malformed files: a few of what `tools/bench/fuzz.py` tries in numbers."""

from __future__ import annotations

import json
import time
from hashlib import sha256
from random import Random

import _mutations
import fuzz
import numpy as np
import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return fuzz.targets(tmp_path_factory.mktemp("targets"))


@pytest.mark.parametrize("name", ["profile", "manifest", "state", "settings", "data"])
def test_no_malformed_file_raises_an_error_that_is_not_ours(name, found, tmp_path, monkeypatch):
    target, rng = found[name], Random(1)
    verdicts = [fuzz._tried(target, target.mutate(rng.choice(target.seeds), rng), tmp_path) for _ in range(150)]
    assert not [verdict for verdict in verdicts if verdict[0] == "foreign"]
    assert {verdict[0] for verdict in verdicts} == {"taken", "refused"}  # the files are neither sound nor hopeless


def test_sound_files_are_taken(found, tmp_path):
    for target in found.values():
        for seed in target.seeds:
            assert fuzz._tried(target, seed, tmp_path)[0] == "taken"


def test_what_is_not_ours_is_found(found, tmp_path):
    def broken(path):
        raise KeyError("x")

    assert fuzz._tried(found["data"]._replace(read=broken), b"", tmp_path)[:2] == ("foreign", "KeyError: 'x'")


def test_mutations_change_files_and_depend_on_the_seed_alone(found, monkeypatch):
    for target in found.values():
        made = []
        for now_s in (1e9, 1.1e9):  # an archive keeps dates
            rng, clock = Random(3), time.localtime(now_s)
            monkeypatch.setattr(time, "localtime", lambda *_, clock=clock: clock)
            made.append([sha256(target.mutate(target.seeds[0], rng)).hexdigest() for _ in range(40)])
            monkeypatch.undo()
        assert made[0] == made[1] and len(set(made[0])) > 20


def test_headers_that_lie_are_among_them():
    array = _mutations._npy(b"\0" * 64, "<f4", (10**12,))
    assert b"1000000000000" in array and np.lib.format.MAGIC_PREFIX in array[:6]
    assert json.loads(_mutations.json_of(b'{"a": [1, {"b": 2}]}', Random(5))) != {"a": [1, {"b": 2}]}
