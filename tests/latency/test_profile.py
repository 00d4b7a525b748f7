from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from random import Random

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import profile
from edgemeta.space.cells import darts
from edgemeta.space.presets import seq
from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Timing


@pytest.fixture
def data(host, tmp_path) -> dict:
    return json.loads(profile.save(host, tmp_path / "good.json").read_text())


def test_round_trip_is_exact(host, tmp_path, tiny):
    arch = tiny.sample(rng=Random(3))
    odd = replace(
        host,
        nets=(
            NetTiming(arch, Timing(0.1 + 0.2, 1e-9, 3), tiny.ops(arch)),
            NetTiming(Arch("a", ()), Timing(1.0, 0.0, 1)),
        ),
        status={next(iter(host.ops)): "noisy: a reason"},
    )
    for one in (host, odd):
        assert profile.load(profile.save(one, tmp_path / "p.json")) == one


@pytest.mark.parametrize("space", [seq(), darts()], ids=str)
def test_dilated_and_flat_operators_come_back(space: Space, host, tmp_path):
    ops = space.ops(space.sample(rng=Random(0)))
    assert any(op.flat or op.dilation > 1 for op in ops)
    timed = replace(host, nets=(NetTiming(Arch(space.name, ()), Timing(1.0, 0.0, 1), ops),), ops={}, status={})
    assert profile.load(profile.save(timed, tmp_path / "p.json")) == timed
    assert [profile._op_of(op.key) for op in ops] == [replace(op, inputs=(-1,)) for op in ops]


def test_null_ships_and_is_synthetic(null):
    assert "null" in profile.available()
    assert null.synthetic and dict(null.overhead) == {"per_mmac_ms": 1.0}


def _first(data: dict) -> dict:
    return next(iter(data["ops"].values()))


def _microseconds(data: dict) -> None:
    _first(data)["median_us"] = 1e3 * _first(data).pop("median_ms")


def _renamed_values(data: dict) -> None:
    for row in data["ops"].values():
        row["median_ms"] *= 1e7


def _ops_in_microseconds(data: dict) -> None:
    for row in data["ops"].values():
        row["median_ms"] = 1e3 * max(row["median_ms"], 1e-3)


def _scale(data: dict, factor: float) -> None:
    for timing in [*data["ops"].values(), *(net["timing"] for net in data["nets"])]:
        timing["median_ms"] *= factor


def _contradict(data: dict) -> None:
    again = copy.deepcopy(data["nets"][0])
    again["timing"]["median_ms"] *= 5
    data["nets"].append(again)


def _alike(data: dict) -> None:
    for net in data["nets"]:
        net["timing"]["median_ms"] = 1.0


WRONG = {
    "median_us": (_microseconds, "unknown field; times are in milliseconds|missing"),
    "far too long": (_renamed_values, "microseconds"),
    "operators beside networks": (_ops_in_microseconds, "mixed units"),
    "negative": (lambda d: _first(d).update(median_ms=-1.0), "greater than or equal to 0, got -1.0"),
    "nan": (lambda d: _first(d).update(median_ms=float("nan")), "finite number"),
    "infinite": (lambda d: _first(d).update(iqr_ms=float("inf")), "finite number"),
    "null time": (lambda d: _first(d).update(median_ms=None), "valid number"),
    "text time": (lambda d: _first(d).update(median_ms="0.1"), "valid number"),
    "no repeats": (lambda d: _first(d).update(n=0), "greater than or equal to 1"),
    "no device": (lambda d: d.pop("device"), "device: missing"),
    "no operators": (lambda d: d.pop("ops"), "ops: missing"),
    "no timing at all": (lambda d: d.update(ops={}, overhead={}, nets=[]), "holds no timing"),
    "unit-less overhead": (lambda d: d.update(overhead={"run": 1.0}), "overhead"),
    "unknown field": (lambda d: d.update(colour="red"), "colour: unknown field"),
    "zero threads": (lambda d: d.update(threads=0), "threads"),
    "seconds everywhere": (lambda d: _scale(d, 1e-4), "faster than any device; are these seconds"),
    "microseconds everywhere": (lambda d: _scale(d, 3e3), "slower than any device; are these microseconds"),
    "networks that contradict": (_contradict, "two timings of .* are 5.0-fold apart"),
    "networks all alike": (_alike, "all .* timings are 1 ms"),
    "a network without a time": (lambda d: d["nets"][0]["timing"].update(median_ms=0.0), "0 ms is no time"),
    "not a date": (lambda d: d.update(measured_on="yesterday"), "measured_on"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_profile_is_one_line_with_the_next_move(case, data, tmp_path):
    change, message = WRONG[case]
    changed = copy.deepcopy(data)
    change(changed)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(BadProfile, match=message) as caught:
        profile.load(path)
    assert "\n" not in str(caught.value) and "edgemeta profile" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"device": "x"' + b"[" * 5000])
def test_what_is_not_json_of_ours(text, tmp_path):
    path = tmp_path / "broken.json"
    path.write_bytes(text)
    with pytest.raises(BadProfile) as caught:
        profile.load(path)
    assert "\n" not in str(caught.value)


def test_truncation_anywhere_is_noticed(data, tmp_path):
    whole, path = json.dumps(data).encode(), tmp_path / "cut.json"
    for share in range(1, 20):
        path.write_bytes(whole[: len(whole) * share // 20])
        with pytest.raises(BadProfile):
            profile.load(path)


def test_a_key_given_twice_is_refused(data, tmp_path):
    """JSON readers keep the last of two values without a word."""
    path, key = tmp_path / "twice.json", next(iter(data["ops"]))
    text = json.dumps(data)
    path.write_text(text.replace('"ops": {', f'"ops": {{"{key}": {{"median_ms": 9.0, "iqr_ms": 0.0, "n": 1}}, '))
    with pytest.raises(BadProfile, match=f"names '{key}' twice; keep the right one"):
        profile.load(path)


def test_whole_networks_alone_make_a_profile(host, tmp_path):
    only = replace(host, ops={}, overhead={}, status={})
    assert profile.load(profile.save(only, tmp_path / "nets.json")) == only


def test_an_unknown_device_names_the_nearest_and_the_list():
    with pytest.raises(BadProfile, match="did you mean 'null'.*edgemeta devices"):
        profile.load("nul")
    with pytest.raises(BadProfile, match="no profile at .*edgemeta profile"):
        profile.load("missing/folder.json")


def test_a_huge_file_is_refused_before_parsing(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "MAX_BYTES", 10)
    path = tmp_path / "huge.json"
    path.write_bytes(b" " * 11)
    with pytest.raises(BadProfile, match="at most"):
        profile.load(path)


def test_another_runtime_version_warns_in_one_line(host, tmp_path):
    path = profile.save(replace(host, versions={**host.versions, "onnxruntime": "0.0.1"}), tmp_path / "old.json")
    with pytest.warns(UserWarning, match=r"onnxruntime 0\.0\.1, here is") as caught:
        profile.load(path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_the_same_runtime_version_is_silent(host, tmp_path):
    path = profile.save(host, tmp_path / "same.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert profile.load(path) == host


def test_save_refuses_what_load_would(host, tmp_path):
    with pytest.raises(BadProfile):
        profile.save(replace(host, overhead={"run_ms": float("nan")}), tmp_path / "bad.json")
    assert not (tmp_path / "bad.json").exists()
