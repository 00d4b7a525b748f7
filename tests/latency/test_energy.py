"""Energy from counters as the kernel lays them out, in a folder of our own; without any, nothing is guessed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgemeta.errors import BadConfig
from edgemeta.latency import energy
from edgemeta.latency.cost import cost, energy_mj, upper
from edgemeta.latency.table import predictor
from edgemeta.types import Arch, NetTiming, Timing

WRAP = 1_000_000


def zone(root: Path, folder: str, name: str, uj: int = 0) -> Path:
    made = root / folder
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{WRAP}\n")
    (made / "energy_uj").write_text(f"{uj}\n")
    return made / "energy_uj"


@pytest.fixture
def root(tmp_path) -> Path:
    """Two packages; a zone inside one and `psys` around both, which would count twice."""
    zone(tmp_path, "intel-rapl:0", "package-0", 500)
    zone(tmp_path, "intel-rapl:1", "package-1", WRAP - 100)
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:2", "psys")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    return tmp_path


class Machine:
    """A clock and counters that a run moves: 1 ms and so many micro-joules."""

    def __init__(self, root: Path, uj: int):
        self.now, self._uj, self._packages = 0.0, uj, energy.packages(root)

    def clock(self) -> float:
        return self.now

    def run(self) -> None:
        self.now += 1e-3
        for package in self._packages:
            moved = (int(package.counter.read_text()) + self._uj) % (package.wraps_uj + 1)
            package.counter.write_text(str(moved))


def test_packages_are_counted_once(root):
    assert [package.counter.parent.name for package in energy.packages(root)] == ["intel-rapl:0", "intel-rapl:1"]
    assert energy.why_not(root) == ""


def test_a_loop_draws_what_the_counters_move_even_past_their_end(root):
    machine = Machine(root, uj=2000)
    drawn = energy.draw(machine.run, energy.packages(root), seconds=0.2, clock=machine.clock)
    assert drawn.ms == pytest.approx(200, abs=1.5) and drawn.mj == pytest.approx(2 * 2.0 * drawn.ms)


def test_the_rate_is_that_of_all_loops_and_unlike_ones_are_doubted(null):
    even = energy.with_rate(null, [energy.Draw(100.0, 500.0), energy.Draw(300.0, 1500.0)])
    assert even.overhead[energy.RATE] == 5.0 and not even.doubts
    uneven = energy.with_rate(null, [energy.Draw(100.0, 500.0), energy.Draw(100.0, 1000.0)])
    assert uneven.overhead[energy.RATE] == 7.5 and "5 to 10 W" in uneven.doubts[0]


def test_a_counter_that_stands_still_measures_nothing(null):
    assert energy.with_rate(null, [energy.Draw(100.0, 0.0)]) is null


def test_networks_of_all_sizes_are_run(tiny):
    nets = [NetTiming(Arch("s", (i,)), Timing(float(100 - i), 0.0, 1)) for i in range(100)]
    times = [net.timing.median_ms for net in energy.spread(nets)]
    assert len(times) == energy.NETS >= energy.FEWEST_NETS and times == sorted(times)
    assert (times[0], times[-1]) == (1.0, 100.0)
    assert len(energy.spread(nets[:3])) == 3 and energy.spread([]) == []


def test_a_profile_of_this_machine_gets_a_rate_from_runs_of_its_networks(host, tiny, tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setattr(energy, "_uj", lambda package: int(5e6 * time.perf_counter()) % (WRAP + 1))  # draws 5 W
    assert energy.added(host, tiny, root=tmp_path, seconds=0.2).overhead[energy.RATE] == pytest.approx(5, rel=0.3)


def test_no_rate_without_a_counter_that_moves_or_for_another_runtime(host, tiny, tmp_path):
    assert energy.added(host, tiny, root=tmp_path) is host
    zone(tmp_path, "intel-rapl:0", "package-0")
    assert energy.added(host, tiny, root=tmp_path, seconds=0.05) is host  # it stands still
    for other in (replace(host, precision="int8"), replace(host, runtime="wasm"), replace(host, nets=host.nets[:3])):
        assert energy.added(other, tiny, root=tmp_path) is other
    assert energy.RATE not in host.overhead


def test_why_energy_is_not_measured(tmp_path, monkeypatch):
    assert "no energy counter in" in energy.why_not(tmp_path)
    counter = zone(tmp_path, "intel-rapl:0", "package-0")
    read = Path.read_text

    def refuse(path, *rest, **more):
        if path == counter:
            raise PermissionError(13, "Permission denied")
        return read(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        assert energy.packages(tmp_path) == ()
        assert "not measured: " in energy.why_not(tmp_path) and "is for the administrator" in energy.why_not(tmp_path)
    assert energy.why_not(tmp_path) == ""
    (tmp_path / "intel-rapl:0" / "name").write_text("dram")
    assert "no counter of a processor package" in energy.why_not(tmp_path)


def test_costs_carry_energy_where_it_was_measured_and_meet_no_cap_where_not(tiny, null, rng):
    ops = tiny.ops(tiny.sample(rng=rng))
    assert cost(ops, predictor(null)).energy_mj == math.inf
    rated = predictor(replace(null, overhead={**null.overhead, energy.RATE: 2.5, "head_ms": 0.25}))
    spent = cost(ops, rated)
    assert spent.energy_mj == 2.5 * spent.latency_ms == energy_mj(spent.latency_ms, rated)
    assert upper(ops, rated).energy_mj == 2.5 * upper(ops, rated).latency_ms


def test_a_cap_on_energy_needs_a_device_that_carries_it(null):
    energy.require(replace(null, overhead={energy.RATE: 1.0}), 3.0)
    with pytest.raises(BadConfig, match="energy_mj = 3: the energy of 'null' is not measured; leave --energy-mj out"):
        energy.require(null, 3.0)
