"""`edgemeta profile import`, as its command line and as what a search makes of the profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemeta import config as configs
from edgemeta.cli import main
from edgemeta.config import make
from edgemeta.errors import BadConfig, BadProfile
from edgemeta.latency import profile as profiles
from edgemeta.space.blocks import FBNET_OPS
from edgemeta.space.presets import tiny
from edgemeta.stages import assemble, imports
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import NetTiming, Timing


@pytest.fixture
def table(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "fbnet.npz"
    np.savez(
        path,
        latency_ms=rng.uniform(5, 20, (2, 30)).astype(np.float32),
        devices=np.array(["raspi4", "titan_rtx_32"]),
        op_idx=rng.integers(0, 9, (30, 22), dtype=np.int8),
        op_names=np.array([*FBNET_OPS, "skip"]),
    )
    return path


def run(*arguments: str) -> int:
    return main(["profile", "import", *arguments])


def test_a_table_lists_its_devices_and_gives_one_as_a_profile(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--format", "fbnet", str(table)) == 0
    shown = capsys.readouterr().out
    assert "titan_rtx_32" in shown and "raspi4" in shown and "choose one with --device" in shown
    assert run("--format", "fbnet", str(table), "--device", "titan_rtx_32") == 0
    shown = capsys.readouterr().out
    assert "30 networks of fbnet" in shown and "batch 32" in shown and "source: FBNet" in shown
    assert "doubt: threads, clock and spread are not published" in shown
    made = profiles.load(tmp_path / "titan_rtx_32.json")
    assert made.batch == 32 and made.runtime == "published" and len(made.nets) == 30


def test_timings_taken_by_hand(tmp_path, capsys):
    picks = ["0.0.0.0.0.0.0.0.0.0", "1.1.0.0.0.0.0.0.0.0"]
    (tmp_path / "mine.csv").write_text(f"arch,ms\n{picks[0]},0.1\n{picks[1]},0.2\n")
    out, settings = tmp_path / "board.json", ("--space", "tiny", "--in-shape", "1,12,12")
    given = ("--format", "timings", str(tmp_path / "mine.csv"), *settings, "--out", str(out))
    assert run(*given, "--device", "board", "--precision", "int8") == 0
    assert profiles.load(out).precision == "int8" and "2 networks of tiny-1x12x12" in capsys.readouterr().out
    assert run(*given) == 2
    assert "give --device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "nb20", "x"], "did you mean 'nb201'?"),
        (["x"], "choose one of: fbnet, nb201, ofa, timings; give --format"),
        (["--format", "nb201"], "no file to import: name it"),
        (["--format", "nb201", "absent.npz"], "cannot read absent.npz: No such file"),
        (["--format", "timings", "x", "--device", "d", "--space", "nb20"], "did you mean 'nb201'?"),
    ],
)
def test_mistakes_are_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert says in shown and "\n" not in shown and list(tmp_path.iterdir()) == []


def test_a_search_in_a_space_the_device_never_saw_is_refused(table, tmp_path):
    settings = {"file": table, "format": "fbnet", "device": "raspi4", "out": tmp_path / "r.json"}
    imports.run(make(configs.Import, settings))
    config = make(configs.Search, {"device": str(tmp_path / "r.json"), "space": "tiny", "run": tmp_path})
    with pytest.raises(BadProfile, match="'raspi4' never saw space tiny-1x12x12, only fbnet; time some"):
        assemble.profile_of(config, RunFolder(tmp_path), tiny())


@pytest.mark.parametrize(("factor", "says"), [(1e-5, "are these seconds"), (3e3, "are these microseconds")])
def test_networks_timed_in_another_unit_are_refused(tmp_path, factor, says):
    """Whole networks without their operators, as `edgemeta profile --timings` makes them: the space knows the work."""
    space = tiny()
    archs = [space.arch([{"width": width, "kind": kind}] * 2) for width in (4, 8) for kind in ("conv", "mb6")]
    nets = tuple(NetTiming(arch, Timing(factor * (0.1 + i / 10), 0.0, 1)) for i, arch in enumerate(archs))
    device = replace(profiles.load("null"), device="board", synthetic=False, overhead={}, nets=nets)
    path = profiles.save(device, tmp_path / "board.json")
    config = make(configs.Search, {"device": str(path), "space": "tiny", "run": tmp_path})
    with pytest.raises(BadProfile, match=says):
        assemble.profile_of(config, RunFolder(tmp_path), space)


def test_a_cap_on_energy_is_refused_at_once_where_none_is_measured(tmp_path):
    config = make(configs.Search, {"device": "null", "energy_mj": 3.0, "run": tmp_path})
    with pytest.raises(BadConfig, match="the energy of 'null' is not measured; leave --energy-mj out"):
        assemble.check(config)


def test_a_cap_on_energy_on_this_machine_needs_its_counter_or_a_kept_profile(tmp_path, monkeypatch, null_with_energy):
    monkeypatch.setattr(assemble.energy, "why_not", lambda: "not measured: no energy counter")
    config = make(configs.Search, {"energy_mj": 3.0, "run": tmp_path, "space": "tiny", "in_shape": (1, 12, 12)})
    with pytest.raises(BadConfig, match="energy_mj = 3: not measured: no energy counter; leave --energy-mj out"):
        assemble.check(config)
    profiles.save(null_with_energy, RunFolder(tmp_path).profile(tiny().name))
    assemble.check(config)
    monkeypatch.setattr(assemble.energy, "why_not", lambda: "")
    assemble.check(make(configs.Search, {"energy_mj": 3.0, "run": tmp_path / "new"}))
