"""The relaxation is the space's own network wherever its logits are certain, and gradients pass through them."""

from __future__ import annotations

from random import Random

import pytest
import torch

from edgemeta.errors import BadConfig
from edgemeta.nets.build import build
from edgemeta.nets.relaxed import relax, skips
from edgemeta.space.cells import DARTS_OPS, darts, nb201, trainable_nb201
from edgemeta.types import Arch

SURE = 1e4  # between logits: the weaker has a weight of exactly zero


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def small():
    """A relaxation of six-pixel images, and float64 parameters of it."""
    relaxed = relax(darts((1, 6, 6)), width=1, depth=3)
    params = {name: value.double() for name, value in relaxed.init(rng=seeded(0)).items()}
    return relaxed, params


def certain(relaxed, arch):
    """Logits that leave nothing but `arch`: none on the edges that it does not use."""
    uses = {(cell, row): column for cell, row, column in relaxed.uses(arch)}
    alpha = {cell: torch.full_like(logits, -SURE) for cell, logits in relaxed.alpha(rng=seeded(0)).items()}
    for cell, logits in alpha.items():
        for row in range(len(logits)):
            logits[row, uses.get((cell, row), relaxed.kind.operators.index("none"))] = 0.0
    return alpha


def left(relaxed, arch):
    """Positions of the convolutions that `certain` logits leave, by a walk back from the last operator."""
    uses, open_, seen = set(relaxed.uses(arch)), [len(relaxed.ops) - 1], set()
    while open_:
        i = open_.pop()
        if i in seen or i < 0:
            continue
        seen.add(i)
        weights = relaxed.weighed.get(i, (None, None))
        open_ += [j for j, use in zip(relaxed.ops[i].inputs, weights, strict=False) if use is None or use in uses]
        open_ += relaxed.ops[i].inputs[2:]
    return [i for i in sorted(seen) if relaxed.ops[i].kind == "conv"]


def same_weights(relaxed, params, ops, arch):
    """Parameters of the built network: those of the relaxation, batch norm without scale and shift."""
    convolutions, found = [i for i, op in enumerate(ops) if op.kind == "conv"], {}
    for mine, its in zip(convolutions, left(relaxed, arch), strict=True):
        width = ops[mine].out_shape[0]
        found |= {f"{mine}.weight": params[f"{its}.weight"]}
        found |= {f"{mine}.gamma": torch.ones(width).double(), f"{mine}.beta": torch.zeros(width).double()}
    return found


def cases():
    rng = seeded(3)
    space = darts((2, 8, 7), width=2, cells=3)
    for number in range(3):
        relaxed = relax(space, width=2, depth=3, stride=1)
        yield pytest.param(relaxed, relaxed.derive(relaxed.alpha(rng=rng, spread=1.0)), id=f"darts{number}")
    space = trainable_nb201((1, 5, 6))
    for picks in ((1, 2, 3, 4, 3, 2), (3, 3, 1, 0, 2, 4)):
        yield pytest.param(relax(space, width=16, depth=5), Arch(space.name, picks), id=f"nb201-{picks}")


@pytest.mark.parametrize(("relaxed", "arch"), list(cases()))
def test_certain_logits_are_the_network_itself(relaxed, arch):
    params = {name: value.double() for name, value in relaxed.init(rng=seeded(0)).items()}
    x = torch.rand((3, *relaxed.space.in_shape), generator=seeded(1), dtype=torch.float64)
    net = build(relaxed.space.ops(arch))
    expected = net.body(same_weights(relaxed, params, net.ops, arch), x, train=True)
    alpha = {cell: logits.double() for cell, logits in certain(relaxed, arch).items()}
    assert expected.std() > 1e-3 and relaxed.dim == net.dim
    torch.testing.assert_close(relaxed.body(params, alpha, x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(relaxed.net(alpha).body(params, x, train=True), expected, rtol=1e-9, atol=1e-9)


def test_gradients_of_logits_are_differences(small):
    relaxed, params = small
    alpha = {name: value.double().requires_grad_() for name, value in relaxed.alpha(rng=seeded(1), spread=1.0).items()}
    x = torch.rand((4, 1, 6, 6), generator=seeded(2), dtype=torch.float64)
    along = torch.randn((4, relaxed.dim), generator=seeded(3), dtype=torch.float64)
    found = torch.autograd.grad((relaxed.body(params, alpha, x) * along).sum(), list(alpha.values()))
    for (cell, logits), gradient in zip(alpha.items(), found, strict=True):
        assert gradient.shape == (14, len(DARTS_OPS))
        for row, column in ((0, 0), (4, 1), (9, 3), (13, 7)):
            sides = []
            for sign in (1, -1):
                moved = logits.detach().clone()
                moved[row, column] += sign * 1e-5
                with torch.no_grad():
                    sides.append(float((relaxed.body(params, alpha | {cell: moved}, x) * along).sum()))
            assert float(gradient[row, column]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_of_each_node_the_two_strongest_edges_are_derived(small):
    relaxed, _ = small
    alpha = {cell: torch.zeros(14, 8) for cell in ("normal", "reduction")}
    edges = relaxed.kind.edges
    sep, pool, none = (DARTS_OPS.index(name) for name in ("sep_conv_3x3", "max_pool_3x3", "none"))
    alpha["normal"][edges.index((1, 5)), sep] = 3.0
    alpha["normal"][edges.index((1, 5)), pool] = 2.9  # second on its edge, above all other edges
    alpha["normal"][edges.index((4, 5)), pool] = 2.0
    alpha["normal"][edges.index((2, 5)), none] = 9.0  # strong in nothing that can be derived
    node5 = relaxed.derive(alpha).picks[12:16]
    assert node5 == (1, sep, 4, pool)


def test_of_the_other_space_every_edge_is_derived():
    space = trainable_nb201((1, 6, 6))
    alpha = {"cell": torch.eye(5)[[0, 4, 2, 2, 1, 3]]}
    assert relax(space, none=True).derive(alpha) == Arch(space.name, (0, 4, 2, 2, 1, 3))
    assert relax(space).derive(alpha).picks[0] != 0 and relax(space).derive(alpha).picks[1:] == (4, 2, 2, 1, 3)
    assert skips(space, Arch(space.name, (1, 4, 1, 2, 1, 3))) == {"cell": 3}


def test_an_architecture_and_its_uses_are_one(small):
    relaxed, _ = small
    for seed in range(20):
        arch = relaxed.derive(relaxed.alpha(rng=seeded(seed), spread=1.0))
        assert relaxed.canonical(arch) == arch and relaxed.derive(certain(relaxed, arch)) == arch
        uses = relaxed.uses(arch)
        assert len({use[:2] for use in uses}) == 16 and {len(relaxed.space.ops(arch)) > 8} == {True}
        picks = list(arch.picks)
        picks[8:12] = picks[10:12] + picks[8:10]
        other = Arch(arch.space, tuple(picks))
        assert relaxed.canonical(other) == arch and sorted(relaxed.uses(other)) == sorted(uses)


def test_random_logits_derive_every_operator_but_none(small):
    relaxed, _ = small
    archs = [relaxed.derive(relaxed.alpha(rng=seeded(seed), spread=1.0)) for seed in range(60)]
    seen = {pick for arch in archs for pick in arch.picks[1::2]}
    assert seen == set(range(1, len(DARTS_OPS)))
    assert {arch.picks[12] for arch in archs} == {0, 1, 2, 3}


def test_skips_are_counted_cell_by_cell(small):
    relaxed, _ = small
    picks = [0, 3, 1, 3] * 4 + [0, 4, 1, 3] + [0, 5, 1, 6] * 3
    assert skips(relaxed.space, Arch(relaxed.space.name, tuple(picks))) == {"normal": 8, "reduction": 1}


def test_seeds_decide_and_batches_of_any_size_pass():
    relaxed = relax(trainable_nb201((3, 7, 5)), width=3)
    one, same, other = (relaxed.init(rng=seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    for n in (2, 5):
        z = relaxed.body(one, relaxed.alpha(rng=seeded(0)), torch.rand((n, 3, 7, 5), generator=seeded(n)))
        assert z.shape == (n, 12) and z.isfinite().all()


def test_the_published_space_is_relaxed_and_others_are_refused(tiny, rng: Random):
    assert relax(nb201()).derive({"cell": torch.zeros(6, 5)}).space == "nb201"
    with pytest.raises(BadConfig, match="tiny-1x12x12 has no cells to be relaxed; search darts or nb201"):
        relax(tiny)
    with pytest.raises(BadConfig, match="no relaxation has width None and depth 2; give 1 and 3 or more"):
        relax(darts(), depth=2)
    with pytest.raises(BadConfig, match="search darts or nb201"):
        skips(tiny, tiny.sample(rng=rng))
