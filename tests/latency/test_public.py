"""Public latency tables: the layouts of the real ones in small, then the real ones where they are."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import checks, profile, public
from edgemeta.space.blocks import FBNET_OPS
from edgemeta.space.cells import CELL_OPS
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch

REAL = {"nb201": "nasbench201_latency.npz", "fbnet": "fbnet_latency.npz", "ofa": "ofa_latency.npz"}
NETS = 40


def cell(picks) -> str:
    names = [CELL_OPS[pick] for pick in picks]
    return f"|{names[0]}~0|+|{names[1]}~0|{names[2]}~1|+|{names[3]}~0|{names[4]}~1|{names[5]}~2|"


def arrays(format: str) -> dict[str, np.ndarray]:
    """A table of three devices: a GPU with its batch, a processor whose name ends in a number, a phone."""
    rng, random = np.random.default_rng(0), Random(0)
    picks = {tuple(random.randrange(5) for _ in range(6)) for _ in range(3 * NETS)}
    own = {
        "nb201": {"arch_str": np.array([cell(p) for p in sorted(picks)[:NETS]])},
        "fbnet": {
            "op_idx": rng.integers(0, 9, (NETS, 22), dtype=np.int8),
            "op_names": np.array([*FBNET_OPS, "skip"]),
        },
        "ofa": {
            "ks": rng.choice([3, 5, 7], (NETS, 20)),
            "e": rng.choice([3, 4, 6], (NETS, 20)),
            "d": rng.choice([2, 3, 4], (NETS, 5)),
            "r": rng.choice(np.arange(128, 225, 4), NETS),
        },
    }[format]
    times = rng.uniform(5, 20, (3, NETS)).astype(np.float32)
    times[2] = np.round(times[2])
    return {"latency_ms": times, "devices": np.array(["titan_rtx_32", "silver_4114", "pixel2"]), **own}


@pytest.fixture
def write(tmp_path):
    def made(format: str = "nb201", **changed) -> Path:
        path = tmp_path / f"{format}.npz"
        np.savez(path, **{name: value for name, value in (arrays(format) | changed).items() if value is not None})
        return path

    return made


@pytest.mark.parametrize("format", public.FORMATS)
def test_every_timing_arrives_and_survives_the_disk(format, write, tmp_path):
    path, table = write(format), arrays(format)
    made = public.read(path, format, "silver_4114")
    assert [net.timing.median_ms for net in made.nets] == table["latency_ms"][1].astype(float).tolist()
    assert made.batch == 1 and not made.synthetic and not made.ops and "HELP" in made.source
    assert all(net.arch.space == format and not net.ops for net in made.nets)
    assert profile.load(profile.save(made, tmp_path / "p.json")) == made


def test_the_picks_are_those_of_the_space(write):
    text, index = arrays("nb201")["arch_str"], arrays("fbnet")["op_idx"]
    cells = public.read(write("nb201"), "nb201", "pixel2").nets
    assert [cell(net.arch.picks) for net in cells] == text.tolist()
    blocks = public.read(write("fbnet"), "fbnet", "pixel2").nets
    assert [net.arch.picks for net in blocks] == [tuple(row) for row in index.tolist()]
    for name, nets in (("nb201", cells), ("fbnet", blocks)):
        assert PUBLISHED[name]().ops(nets[0].arch)


def test_fbnet_blocks_go_by_name_not_by_number(write):
    table = arrays("fbnet")
    turned = write("fbnet", op_names=table["op_names"][::-1], op_idx=8 - table["op_idx"])
    assert public.read(turned, "fbnet", "pixel2").nets[0].arch.picks == tuple(table["op_idx"][0].tolist())


def test_once_for_all_slots_hold_size_depths_kernels_and_expansions(write):
    table, net = arrays("ofa"), public.read(write("ofa"), "ofa", "pixel2").nets[3]
    slots = [options for _, options in PUBLISHED["ofa"]().slots]
    values = [options[pick] for options, pick in zip(slots, net.arch.picks, strict=True)]
    assert values[0] == table["r"][3] and values[1::9] == table["d"][3].tolist()
    assert values[2:10:2] == table["ks"][3, :4].tolist() and values[3:11:2] == table["e"][3, :4].tolist()


def test_a_batch_is_not_a_model_number(write):
    rows = public.devices(write(), "nb201")
    assert [(row["device"], row["batch"]) for row in rows] == [("titan_rtx_32", 32), ("silver_4114", 1), ("pixel2", 1)]
    assert public.read(write(), "nb201", "titan_rtx_32").batch == 32


def test_a_clock_of_whole_milliseconds_is_told(write):
    assert any("whole milliseconds" in doubt for doubt in public.read(write(), "nb201", "pixel2").doubts)
    assert not any("clock:" in doubt for doubt in public.read(write(), "nb201", "silver_4114").doubts)


def at(row: int, column: int, value: float) -> np.ndarray:
    times = arrays("nb201")["latency_ms"].copy()
    times[row, column] = value
    return times


WRONG = {
    "nan": (dict(latency_ms=at(2, 7, np.nan)), "pixel2: nb201:.* nan ms is no time"),
    "-1 for none": (dict(latency_ms=at(2, 7, -1)), "-1 ms is no time; leave out"),
    "infinite": (dict(latency_ms=at(2, 7, np.inf)), "inf ms is no time"),
    "all the same": (dict(latency_ms=np.full((3, NETS), 9.0, np.float32)), "all 40 timings are 9 ms"),
    "seconds": (dict(latency_ms=arrays("nb201")["latency_ms"] / 1e4), "faster than any device; are these seconds"),
    "microseconds": (dict(latency_ms=arrays("nb201")["latency_ms"] * 1e3), "slower than any device; are these micro"),
    "contradiction": (
        dict(arch_str=np.array([cell((1,) * 6)] * NETS), latency_ms=at(2, 7, 100.0)),
        "two timings of nb201:1.1.1.1.1.1 are .*-fold apart",
    ),
    "another operator": (dict(arch_str=np.array(["|conv_9x9~0|+" * 6] * NETS)), "is no network of nb201"),
    "too few operators": (dict(arch_str=np.array(["|none~0|"] * NETS)), "is no network of nb201"),
    "fewer networks": (dict(arch_str=arrays("nb201")["arch_str"][:5]), "40 timings of 5 networks"),
    "fewer devices": (dict(devices=np.array(["pixel2"])), "not floats"),
    "no networks": (dict(latency_ms=np.zeros((3, 0), np.float32)), "not floats"),
    "times as text": (dict(latency_ms=np.full((3, NETS), "9")), "not floats"),
    "objects": (dict(devices=np.array([{}, [], None], dtype=object)), "never unpickled"),
    "no times": (dict(latency_ms=None), "has no array 'latency_ms' but"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_one_line(case, write):
    changed, says = WRONG[case]
    with pytest.raises(BadProfile, match=says) as caught:
        public.read(write(**changed), "nb201", "pixel2")
    assert "\n" not in str(caught.value)


def test_shapes_of_another_space(write):
    with pytest.raises(BadProfile, match="other shapes than ofa|no network of ofa"):
        public.read(write("ofa", ks=arrays("ofa")["ks"][:, :12]), "ofa", "pixel2")
    with pytest.raises(BadProfile, match="op_idx points past the 9 op_names"):
        public.read(write("fbnet", op_idx=arrays("fbnet")["op_idx"] + 1), "fbnet", "pixel2")


def test_another_format_and_another_device_name_the_nearest(write):
    with pytest.raises(BadProfile, match="has no array 'arch_str' but .*; it looks like --format fbnet"):
        public.read(write("fbnet"), "nb201", "pixel2")
    with pytest.raises(BadProfile, match="no device 'pixel'; did you mean 'pixel2'"):
        public.read(write(), "nb201", "pixel")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps([1.0]), b"\x93NUMPY", b'{"a": 1}'])
def test_what_is_no_table(content, tmp_path):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(BadProfile, match="cannot read .*foreign.npz: .*; give an unchanged file"):
        public.devices(path, "nb201")
    with pytest.raises(BadProfile, match="No such file"):
        public.devices(tmp_path / "absent.npz", "nb201")


def test_truncation_anywhere_is_noticed(write):
    path = write()
    whole = path.read_bytes()
    for share in range(1, 10):
        path.write_bytes(whole[: len(whole) * share // 10])
        with pytest.raises(BadProfile):
            public.read(path, "nb201", "pixel2")


def test_what_would_not_fit_in_memory_is_refused_unread(write, monkeypatch):
    monkeypatch.setattr(public, "MAX_BYTES", 100)
    with pytest.raises(BadProfile, match="unpacks to"):
        public.devices(write(), "nb201")


@pytest.mark.parametrize("format", REAL)
def test_the_real_tables(format, data_root):
    path = data_root / "help" / REAL[format]
    rows = public.devices(path, format)
    assert len(rows) == (12 if format == "ofa" else 27)
    assert {row["batch"] for row in rows} <= {1, 32, 64, 256}
    made = public.read(path, format, rows[-1]["device"])
    assert len({net.arch for net in made.nets}) == len(made.nets) == rows[-1]["nets"]


@pytest.mark.parametrize("format", ["nb201", "fbnet"])
def test_wrong_units_of_every_real_device_are_noticed(format, data_root):
    """Off by 1000 either way: refused, or doubted where a device could be that fast or slow; never the right unit."""
    space, path = PUBLISHED[format](), data_root / "help" / REAL[format]
    with np.load(path, allow_pickle=False) as archive:
        times = archive["latency_ms"].astype(float)[:, ::250]
    first = public.read(path, format, "pixel3").nets[::250]
    ops = [space.ops(Arch(format, net.arch.picks)) for net in first]
    for row, listed in zip(times, public.devices(path, format), strict=True):
        assert checks.check_unit(zip(ops, row, strict=True), "x", batch=listed["batch"]) == ()
        for factor in (1e-3, 1e3):
            try:
                found = checks.check_unit(zip(ops, factor * row, strict=True), "x", batch=listed["batch"])
            except BadProfile:
                continue
            assert found, (listed["device"], factor)
