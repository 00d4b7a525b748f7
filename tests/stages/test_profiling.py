"""`edgemeta profile` in all its ways, as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgemeta.cli import main
from edgemeta.latency import profile as profiles
from edgemeta.stages.run_folder import RunFolder

SPACE = ("--space", "tiny", "--in-shape", "1,12,12", "--nets", "2", "--no-progress")


@pytest.fixture
def run(tmp_path, capsys):
    """Give a command line to `edgemeta profile`; what it printed, and the profiles in its run folder."""

    def call(*arguments):
        assert main(["profile", "--run", str(tmp_path / "run"), *map(str, arguments)]) == 0
        return capsys.readouterr().out, [profiles.load(path) for path in (tmp_path / "run").glob("profile-*.json")]

    return call


def refused(capsys, *arguments) -> str:
    assert main(["profile", *map(str, arguments)]) == 2
    shown = capsys.readouterr().err.strip()
    assert "\n" not in shown
    return shown


def test_a_kit_goes_by_hand_and_comes_back(run, tmp_path, capsys):
    folder, host = tmp_path / "kit", RunFolder(tmp_path / "run").profile("tiny-1x12x12")
    told, found = run(*SPACE, "--kit", folder)
    assert "python3 edgemeta_profile.py" in told and "--from" in told and found == []
    subprocess.run([sys.executable, folder / "edgemeta_profile.py"], check=True, capture_output=True)
    told, (made,) = run("--kit", folder, "--from", folder / "timings.json")
    assert made.ops and not made.device.startswith("host-") and made.device in told and not host.exists()
    run(*SPACE, "--kit", folder, "--seed", 1)
    assert "another kit" in refused(capsys, "--kit", folder, "--from", folder / "timings.json", "--run", tmp_path / "r")


def test_this_machines_other_settings_stand_beside_its_own_profile(run, tmp_path):
    _, (first,) = run(*SPACE)
    _, both = run(*SPACE, "--precision", "int8", "--threads", 2)
    assert {made.device for made in both} == {first.device, f"{first.device}-2t-int8"}
    assert profiles.load(RunFolder(tmp_path / "run").profile("tiny-1x12x12")) == first
    assert not list((tmp_path / "run").glob("*.partial.json"))


def test_a_few_timings_make_a_profile_of_networks_alone(run, tmp_path):
    told, (made,) = run(*SPACE, "--timings", 3)
    assert not made.ops and len(made.nets) == 3 and "3 networks" in told and "-3-nets.json" in told
    assert not RunFolder(tmp_path / "run").profile("tiny-1x12x12").exists()


def test_over_ssh_another_machine_is_timed(run, tmp_path, monkeypatch):
    """Here the far shell is a shell of this machine, with a home of its own."""
    shim = tmp_path / "bin" / "ssh"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\ncd "$FAR" && HOME="$FAR" exec sh -c "$3"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "far").mkdir()
    monkeypatch.setenv("FAR", str(tmp_path / "far"))
    told, (made,) = run(*SPACE, "--ssh", "me@board", "--remote-python", sys.executable)
    assert made.ops and not made.device.startswith("host-")
    assert not list((tmp_path / "far").rglob("kit-*"))


def test_doubts_are_told(capsys, tmp_path):
    from edgemeta.stages.profiling import text

    made = profiles.load("null")
    doubtful = type(made)(**vars(made) | {"doubts": ("busy", "slow")})
    assert str(text(doubtful, tmp_path)).splitlines()[1:] == ["doubt: busy", "doubt: slow"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "t.json"], "--from needs --kit"),
        (["--kit", "k", "--ssh", "board"], "leave --kit out"),
        (["--ssh", "board", "--runtime", "onnxruntime-web"], "only onnxruntime"),
        (["--timings", "0"], "timings = 0: should be greater than 0"),
        (["--seconds", "inf"], "should be at most 3600"),
        (["--seconds", "0"], "should be greater than 0"),
        (["--kit", "absent", "--from", "absent.json"], "no kit in absent"),
        (["--kit", ".", "--space", "tiny"], "something else than a kit"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("")
    assert says in refused(capsys, *arguments)
    assert (tmp_path / "mine").exists()
