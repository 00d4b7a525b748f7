"""Features of architectures: centred, complete, and adding up where they should."""

from __future__ import annotations

import numpy as np
import pytest

from edgemeta.latency import basis, simulate
from edgemeta.latency.parts import count
from edgemeta.space.blocks import fbnet
from edgemeta.space.cells import nb201
from edgemeta.types import Arch

NONE, SKIP, CONV1, CONV3, POOL = range(5)


@pytest.fixture(params=["cells", "toys"])
def lab(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def few() -> simulate.Devices:
    return simulate.draw(300, rng=np.random.default_rng(11))


def cell(*picks: int):
    return count([nb201().ops(Arch("nb201", picks))])


def test_typical_networks_are_the_centre(lab):
    of = lab.ground.prior.basis
    features = of(lab.ground.typical)
    assert np.abs(features.mean(0)).max() < 1e-9
    for block in of.blocks[1:]:
        assert (features[:, block] ** 2).sum(1).mean() == pytest.approx(1)


def test_blocks_are_all_features(lab):
    of = lab.ground.prior.basis
    columns = [i for block in of.blocks for i in range(block.start, block.stop)]
    assert columns == list(range(lab.features.shape[1]))
    assert all(block.stop > block.start for block in of.blocks)


def test_landmarks_stand_for_every_simulated_device(lab, few):
    """On networks that were not among the typical ones."""
    made, weights = basis.build(lab.ground.typical, few)
    scale = simulate.scales(lab.ground.typical, few)
    truth = simulate.log_times(lab.parts, few, scale)
    truth = truth - simulate.log_times(lab.ground.typical, few, scale).mean(0)
    error = made(lab.parts)[:, made.blocks[0]] @ weights - truth
    relative = np.sqrt((error**2).mean(0)) / np.ptp(truth, axis=0)
    assert np.median(relative) < 0.01 and relative.max() < 0.05


def test_fewer_devices_than_landmarks_stand_for_themselves(lab):
    three = simulate.draw(3, rng=np.random.default_rng(0))
    made, weights = basis.build(lab.ground.typical, three)
    assert made.blocks[0] == slice(0, 3)
    assert np.allclose(sorted(np.abs(weights).max(0)), 1, atol=1e-3)


def test_seeds_and_order_of_networks_decide_nothing_more(lab):
    of = lab.ground.prior.basis
    some = count([lab.ground.space.ops(arch) for arch in lab.archs[:10][::-1]])
    assert of(some)[::-1] == pytest.approx(lab.features[:10], abs=1e-4)


def test_counts_add_up_over_parts(lab):
    of = lab.ground.prior.basis
    twice = lab.parts._replace(counts=2 * lab.parts.counts[:5])
    assert of.counts(twice) == pytest.approx(2 * of.counts(lab.parts)[:5])


def test_kinds_count_what_runs_and_what_is_there(cells):
    of = cells.ground.prior.basis
    first = of.blocks[0].stop

    def kinds(parts) -> tuple[dict[str, float], dict[str, float]]:
        row = of.counts(parts)[0, : of.blocks[1].stop - first]
        names = [kind for kind in simulate.KINDS if kind != "act"]
        return dict(zip(names, row, strict=False)), dict(zip(names, row[len(names) :], strict=True))

    runs, there = kinds(cell(CONV3, CONV3, CONV3, NONE, NONE, NONE))  # the output gets nothing
    assert there["dense"] - runs["dense"] == 3 * 15 and there["zero"] == 3 * 15 and runs["zero"] == 0
    runs, there = kinds(cell(CONV3, CONV3, CONV3, CONV3, CONV3, CONV3))
    assert runs == there and runs["dense"] == 6 * 15 + 1 + 4  # cells, stem, two reductions


def test_a_choice_counts_where_it_stands(cells):
    """The same operator on another edge is another choice; dead, it still counts among those that are there."""
    of = cells.ground.prior.basis
    choices = slice(2 * (len(simulate.KINDS) - 1), None)
    on_one = of.counts(cell(CONV1, NONE, NONE, NONE, SKIP, NONE))[0, choices]
    on_other = of.counts(cell(NONE, CONV1, NONE, NONE, NONE, SKIP))[0, choices]
    assert not np.allclose(on_one, on_other)
    places = len(of.places)
    dead = of.counts(cell(CONV1, NONE, NONE, NONE, NONE, NONE))[0, choices]
    bare = of.counts(cell(NONE, NONE, NONE, NONE, NONE, NONE))[0, choices]
    assert np.array_equal(dead[:places], bare[:places])
    assert not np.array_equal(dead[places:], bare[places:])


def test_a_basis_knows_its_space_and_no_other(cells, toys, rng):
    for lab, other in ((cells, toys), (toys, cells)):
        assert all(lab.ground.prior.basis.knows(count([lab.ground.space.ops(arch)])) for arch in lab.archs[:20])
        assert not lab.ground.prior.basis.knows(count([other.ground.space.ops(other.archs[0])]))


def test_foreign_networks_have_finite_features_and_no_choices(cells, rng):
    foreign = count([fbnet().ops(fbnet().sample(rng=rng)) for _ in range(5)])
    of = cells.ground.prior.basis
    assert np.isfinite(of(foreign)).all()
    assert not of.counts(foreign)[:, 2 * (len(simulate.KINDS) - 1) :].any()
