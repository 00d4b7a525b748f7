"""A search by gradients: its gradients are right, its latencies add up, and every proposal fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from random import Random

import pytest
import torch

from edgemeta.contracts import Latency
from edgemeta.errors import BadConfig, BadData
from edgemeta.nets.relaxed import relax, skips
from edgemeta.search import bilevel
from edgemeta.search.bilevel import Bilevel, alpha_gradient, halves, learn, task_loss
from edgemeta.search.darts import Darts
from edgemeta.search.expected import fit
from edgemeta.search.jobs import data_pool
from edgemeta.search.probable import ranking
from edgemeta.space.cells import CELL_OPS, DARTS_OPS, darts, trainable_nb201
from edgemeta.types import Arch, Cost
from tests.blobs import blob_pool
from tests.search.small import seeded, small_task

QUICK = Bilevel(episodes=8, way=4, warmup=0.3, width=2, depth=1)
SKIP, POOL = CELL_OPS.index("skip_connect"), CELL_OPS.index("avg_pool_3x3")


@pytest.fixture
def relaxed(cells):
    return relax(cells, width=2, depth=1, none=True)


def test_the_second_order_is_that_of_autograd_through_the_step(monkeypatch):
    monkeypatch.setattr(bilevel, "RADIUS", 1e-5)  # no unit of the network changes sides
    relaxed, unroll = relax(trainable_nb201((1, 6, 6)), width=2, depth=1), 0.5
    params = relaxed.init(rng=seeded(0)) | {"head.log_temperature": torch.tensor(1.0)}
    params = {name: value.double().requires_grad_() for name, value in params.items()}
    alpha = {"cell": relaxed.alpha(rng=seeded(1), spread=1.0)["cell"].double().requires_grad_()}
    taught, judged = small_task(2), small_task(3)

    def loss(params, alpha, tasks):
        return task_loss(relaxed, params, alpha, tasks)

    inner = torch.autograd.grad(loss(params, alpha, taught), list(params.values()), create_graph=True)
    ahead = {name: value - unroll * step for (name, value), step in zip(params.items(), inner, strict=True)}
    value = loss(ahead, alpha, judged)
    (wanted,) = torch.autograd.grad(value, [alpha["cell"]])
    reached, found = alpha_gradient(loss, params, alpha, taught, judged, unroll=unroll)
    assert reached == pytest.approx(float(value.detach()))
    torch.testing.assert_close(found["cell"], wanted, rtol=1e-4, atol=1e-7)
    reached, first = alpha_gradient(loss, params, alpha, taught, judged)
    assert reached == pytest.approx(float(loss(params, alpha, judged).detach()))
    assert (first["cell"] - wanted).abs().max() > 0.05 * wanted.abs().max()  # else the test would show nothing


def test_weights_and_logits_learn_from_other_classes():
    pool, rng = blob_pool(classes=9, seed=0), bilevel.np.random.default_rng(0)
    first, second = halves(pool, QUICK, rng=rng)
    assert len(first.by_class) == 4 and len(second.by_class) == 5
    assert set(first.class_names) | set(second.class_names) == set(pool.class_names)
    for half in (first, second):
        assert all(
            (own == pool.by_class[int(name)]).all() for own, name in zip(half.by_class, half.class_names, strict=True)
        )
    with pytest.raises(BadData, match="3 classes have 2 images; lower shot or add classes"):
        halves(blob_pool(classes=3, seed=0), QUICK, rng=rng)


def test_a_linear_latency_is_found_and_expected(relaxed):
    def latency_ms(arch):
        return 5.0 + sum((1 + slot) * pick for slot, pick in enumerate(arch.picks))

    expected = fit(relaxed, latency_ms, rng=seeded(0), samples=80)
    assert expected.r2 > 0.999999 and expected.error < 1e-6
    arch = Arch(relaxed.space.name, (0, 1, 2, 3, 4, 2))
    assert expected.ms(arch) == pytest.approx(latency_ms(arch))
    certain = {"cell": 1e3 * torch.eye(5)[list(arch.picks)]}
    assert float(expected.latency_ms(certain)) == pytest.approx(latency_ms(arch), rel=1e-5)
    even = torch.zeros(6, 5, requires_grad=True)
    mean = expected.latency_ms({"cell": even})
    assert float(mean.detach()) == pytest.approx(5 + 21 * 2, rel=1e-5)
    mean.backward()
    assert even.grad[5].tolist() == pytest.approx([6 * (pick - 2) / 5 for pick in range(5)], rel=1e-4, abs=1e-5)


def test_latencies_of_cells_are_nearly_linear_and_none_makes_nothing_fast(problem):
    space = darts((1, 12, 12), width=2, cells=3)
    relaxed = relax(space, width=1)
    found = []

    def latency_ms(arch):
        found.append(replace(problem, space=space).bound(arch).latency_ms)
        return found[-1]

    expected = fit(relaxed, latency_ms, rng=seeded(0), samples=120)
    assert expected.r2 > 0.9 and expected.error < 0.05
    even = {cell: torch.zeros(14, 8) for cell in relaxed.kind.cells}
    assert float(expected.latency_ms(even)) == pytest.approx(sum(found) / len(found), rel=0.03)
    for logits in even.values():
        logits[:, DARTS_OPS.index("none")] = 9.0
    assert float(expected.latency_ms(even)) == pytest.approx(sum(found) / len(found), rel=0.03)


def test_proposals_come_in_the_order_of_their_probability(relaxed):
    alpha = relaxed.alpha(rng=seeded(5), spread=1.0)
    ranked = ranking(relaxed, alpha, lambda arch: Cost(1.0), Cost())
    given = list(islice(ranked.walk(relaxed.derive(alpha)), 40))
    every = (Arch(relaxed.space.name, picks) for picks in product(range(5), repeat=6))
    known, wanted = set(), []
    for arch in sorted(every, key=ranked.of, reverse=True):
        if (ops := relaxed.space.ops(arch)) not in known:
            known.add(ops)
            wanted.append(arch)
        if len(wanted) == 40:
            break
    assert [ranked.of(arch) for arch in given] == pytest.approx([ranked.of(arch) for arch in wanted])
    assert len({relaxed.space.ops(arch) for arch in given}) == 40


def test_a_repair_is_feasible_and_nothing_likelier_beside_it_fits(celled, relaxed):
    alpha = {"cell": 0.1 * relaxed.alpha(rng=seeded(2), spread=1.0)["cell"]}
    alpha["cell"][:, CELL_OPS.index("nor_conv_3x3")] += 1.0
    derived = relaxed.derive(alpha)
    ranked = ranking(relaxed, alpha, celled.bound, celled.cap)
    assert ranked.over(derived) > 0
    first = ranked.repaired(derived, rng=Random(0))
    assert ranked.over(first) == 0
    assert all(ranked.over(near) > 0 for near in ranked.near(first) if ranked.of(near) > ranked.of(first))
    for arch in islice(ranked.walk(first), 15):
        assert celled.bound(arch).fits(celled.cap)


def test_where_only_none_fits_it_is_proposed():
    """The cap allows three operators of sixteen."""
    relaxed = relax(darts((1, 8, 8), width=1, cells=3), width=1)
    alpha = relaxed.alpha(rng=seeded(0), spread=1.0)

    def cost_of(arch):
        return Cost(latency_ms=float(sum(DARTS_OPS[pick] != "none" for pick in arch.picks[1::2])))

    ranked = ranking(relaxed, alpha, cost_of, Cost(latency_ms=3.0))
    first = ranked.repaired(relaxed.derive(alpha), rng=Random(0))
    assert cost_of(first).latency_ms == 3
    assert ranking(relaxed, alpha, cost_of, Cost()).repaired(relaxed.derive(alpha), rng=Random(0)) == relaxed.derive(
        alpha
    )


def test_a_cap_that_takes_several_swaps_at_once_leaves_more_than_one_proposal(problem):
    """The convolution that brings in the cell before last is there for as long as any node reads it."""
    space = darts((1, 12, 12), width=2, cells=3)
    celled, relaxed = replace(problem, space=space), relax(space, width=1)
    alpha = relaxed.alpha(rng=seeded(0), spread=1.0)
    derived = relaxed.derive(alpha)
    for share in (0.6, 0.45):
        cap = Cost(latency_ms=share * celled.bound(derived).latency_ms)
        ranked = ranking(relaxed, alpha, celled.bound, cap)
        given = list(islice(ranked.walk(ranked.repaired(derived, rng=Random(0))), 6))
        assert len({space.ops(arch) for arch in given}) == 6
        assert all(celled.bound(arch).fits(cap) for arch in given)


class Planted:
    """Every average pool saves a millisecond."""

    head_ms, slow_ratio, per_ms_mj, precision = 0.0, 1.0, None, "fp32"

    def latency(self, ops):
        ms = 100.0 - sum(op.kind == "avgpool" and op.kernel == 3 for op in ops)
        return Latency(ms, ms, ms)


def test_the_second_order_searches_too_and_a_spent_space_repeats_the_first(celled, cells):
    planted = replace(celled, predictor=Planted(), cap=Cost(latency_ms=10.0))
    searcher = Darts(cells, seed=0, problem=planted, settings=replace(QUICK, order=2))
    assert [searcher.ask().picks for _ in range(3)] == [(POOL,) * 6] * 3
    assert searcher.found.derived != searcher.found.first


def test_what_is_clearly_fastest_is_found(celled, cells):
    planted = replace(celled, predictor=Planted(), cap=Cost(latency_ms=50.0))
    settings = replace(QUICK, episodes=40, warmup=0.1, alpha_lr=0.3, latency=20.0)
    searcher = Darts(cells, seed=0, problem=planted, settings=settings)
    assert searcher.ask().picks == (POOL,) * 6
    assert searcher.found.derived == searcher.found.first


def test_a_collapse_to_skip_connections_is_stopped_before_it_counts(celled, relaxed):
    def pull(alpha):
        return -20 * torch.log_softmax(alpha["cell"], 1)[:, SKIP].sum()

    pool = data_pool(celled.data, "train")
    settings = replace(QUICK, episodes=40, warmup=0.05, alpha_lr=0.001, settle=0.0, check_every=2)
    held = {}
    for most in (2, None):
        learned = learn(relaxed, pool, replace(settings, most_skips=most), seed=1, penalty=pull)
        held[most] = skips(relaxed.space, relaxed.derive(learned.alpha))["cell"]
        assert bool(learned.stopped) == (most is not None) == (learned.episodes < 40)
    assert held[2] <= 2 and held[None] > 2


def test_logits_wait_for_the_weights_to_warm_up(celled, relaxed):
    pool = data_pool(celled.data, "train")
    learned = learn(relaxed, pool, replace(QUICK, warmup=0.99), seed=7)
    assert learned.losses == () and learned.alpha["cell"].abs().max() < 0.01
    moved = learn(relaxed, pool, replace(QUICK, alpha_lr=0.5), seed=7)
    assert len(moved.losses) >= 2 and moved.alpha["cell"].abs().max() > 0.3


def test_settings_that_search_nothing_are_refused_in_a_line():
    with pytest.raises(BadConfig, match="no search of order 3"):
        Bilevel(order=3)
    with pytest.raises(BadConfig, match="episodes = 0 searches nothing"):
        Bilevel(episodes=0)
