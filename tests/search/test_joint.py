"""The joint search: its gradients are those of autograd, cooling loses nothing, tasks find what they need."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgemeta.contracts import Support
from edgemeta.data.episode import Pool
from edgemeta.errors import BadConfig, BadData
from edgemeta.learners.inner import cross_entropy
from edgemeta.learners.outer import Tasks
from edgemeta.nets import candidates
from edgemeta.nets.build import build
from edgemeta.nets.relaxed import Relaxed, relax, skips
from edgemeta.search import BY_GRADIENT
from edgemeta.search.adaptation import LOGITS, RATE, adapt, alpha_of, cooled, outer_gradient, predict
from edgemeta.search.expected import fit
from edgemeta.search.jobs import data_pool
from edgemeta.search.joint import Joint, JointSearch, drawn_tasks, meta_learn
from edgemeta.space.cells import CELL_OPS, darts, lay_nb201_cell, trainable_nb201, walk_nb201
from edgemeta.space.ops import Tape
from edgemeta.types import Cost
from tests.blobs import blob_pool
from tests.search.small import seeded, small_task

QUICK = Joint(episodes=6, way=4, warmup_way=4, query=2, warmup=0.3, drawn=2, last_steps=2, width=2, depth=1, stride=1)
SKIP, CONV = CELL_OPS.index("skip_connect"), CELL_OPS.index("nor_conv_3x3")


@pytest.fixture
def relaxed(cells):
    return relax(cells, width=2, depth=1)


def slow_of(relaxed, *, seed, steps=2, spread=1.0, dtype=torch.float32):
    """Fresh slow tensors, as `meta_learn` starts from but for the spread of the logits."""
    slow = relaxed.init(rng=seeded(seed)) | {"head.log_temperature": torch.tensor(1.5)}
    slow |= {LOGITS + cell: value for cell, value in relaxed.alpha(rng=seeded(seed), spread=spread).items()}
    for group, rate in (("head", -3.0), ("body", -2.0), ("logits", -1.0)):
        slow[RATE + group] = rate + 0.1 * torch.arange(steps)
    return {name: value.to(dtype).requires_grad_() for name, value in slow.items()}


def by_hand(relaxed, slow, tasks, coldest, *, second_order):
    """The queries' loss after two steps, written out with autograd alone."""
    weights = {name: value for name, value in slow.items() if name.endswith(".weight")}
    logits = {name: value for name, value in slow.items() if name.startswith(LOGITS)}

    def features(weights, logits, x, temperature):
        alpha = cooled(relaxed, {name.removeprefix(LOGITS): value for name, value in logits.items()}, temperature)
        z = relaxed.body(weights, alpha, x)
        z = z - z.mean(1, keepdim=True)
        return z / (z.square().mean(1, keepdim=True) + 1e-5).sqrt()

    means = features(weights, logits, tasks.x[0], 1.0)  # of one image each
    scale = slow["head.log_temperature"].exp() / relaxed.dim
    head = [scale * means, -scale / 2 * means.square().sum(1)]
    for step, temperature in enumerate((1.0, coldest**0.5)):
        head = [value + 0 for value in head]  # which depend on the weights: a step takes them apart
        weights, logits = ({name: value + 0 for name, value in own.items()} for own in (weights, logits))
        z = features(weights, logits, tasks.x[0], temperature)
        loss = F.cross_entropy(z @ head[0].T + head[1], torch.arange(3))
        of = [*head, *weights.values(), *logits.values()]
        found = iter(torch.autograd.grad(loss, of, create_graph=True))
        found = (value if second_order else value.detach() for value in found)
        rate = {group: slow[RATE + group][step].exp() for group in ("head", "body", "logits")}
        head = [value - 3 * rate["head"] * next(found) for value in head]
        weights = {name: value - rate["body"] * next(found) for name, value in weights.items()}
        logits = {name: value - rate["logits"] * next(found) for name, value in logits.items()}
    z = features(weights, logits, tasks.query_x[0], coldest)
    return F.cross_entropy(z @ head[0].T + head[1], tasks.query_y[0]), logits


@pytest.mark.parametrize(("make", "second_order"), [(trainable_nb201, False), (trainable_nb201, True), (darts, False)])
def test_the_outer_gradient_is_that_of_autograd_through_the_steps(make, second_order):
    relaxed = relax(make((1, 6, 6)), width=1, depth=3 if make is darts else 1, stride=1)
    slow, tasks = slow_of(relaxed, seed=0, dtype=torch.float64), small_task(1)
    weight = torch.rand(1, len(relaxed.kind.operators), generator=seeded(2), dtype=torch.float64)

    def penalty(alpha):
        return sum((torch.softmax(logits, 1) * weight).sum() for logits in alpha.values())

    wanted, logits = by_hand(relaxed, slow, tasks, 0.5, second_order=second_order)
    total = wanted + penalty({name: value / 0.5 for name, value in logits.items()})
    want = dict(zip(slow, torch.autograd.grad(total, list(slow.values())), strict=True))
    twice = Tasks(*(torch.cat([part, part]) for part in tasks))
    meta = outer_gradient(relaxed, slow, twice, coldest=0.5, second_order=second_order, penalty=penalty)
    assert float(meta.loss) == pytest.approx(float(wanted.detach()), abs=1e-6)  # it is summed in float32
    assert all(float(want[RATE + group].abs().max()) > 1e-8 for group in ("head", "body", "logits"))
    for name, value in want.items():
        torch.testing.assert_close(meta.gradient[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("none", [False, True])
@pytest.mark.parametrize("make", [trainable_nb201, darts])
def test_what_is_cooled_is_what_is_derived(make, none):
    relaxed = relax(make((1, 12, 12)), width=1, stride=2, none=none)
    alpha = relaxed.alpha(rng=seeded(3), spread=1.0)
    cold = {cell: torch.softmax(logits, 1) for cell, logits in cooled(relaxed, alpha, 1e-3).items()}
    derived, one = relaxed.derive(alpha), {cell: torch.zeros_like(value) for cell, value in alpha.items()}
    for cell, row, column in relaxed.uses(derived):
        one[cell][row, column] = 1
    for cell, value in one.items():
        value[:, relaxed.kind.operators.index("none")] += 1 - value.sum(1)
        torch.testing.assert_close(cold[cell], value, rtol=0, atol=1e-5)
    warm = {cell: torch.softmax(logits, 1) for cell, logits in cooled(relaxed, alpha, 1.0).items()}
    for cell, shares in warm.items():
        plain = torch.softmax(alpha[cell][:, relaxed.kind.strong], 1)
        got = shares[:, relaxed.kind.strong] if not none else shares[:, 1:]
        ratio = got / (plain if not none else plain[:, 1:])
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-6)
        if relaxed.kind.inputs:  # two edges of each of four nodes
            assert float(ratio[:, 0].sum()) == pytest.approx(8, rel=1e-4)


def test_a_task_that_cooled_down_loses_nothing_by_being_discretised():
    """The network of the space itself, laid for the architecture alone, with the weights that the task has adapted."""
    space = trainable_nb201((1, 12, 12))
    relaxed = relax(space, width=2, depth=1)
    slow, tasks = slow_of(relaxed, seed=5), small_task(6, size=12, dtype=torch.float32)
    support = Support(tasks.x[0], tasks.onehot[0])
    fast = {name: value.detach() for name, value in adapt(relaxed, slow, support, coldest=0.01).items()}
    arch = relaxed.derive(alpha_of(fast))
    assert arch.picks != (SKIP,) * 6

    edges = [(edge, CELL_OPS[pick]) for edge, pick in zip(relaxed.kind.edges, arch.picks, strict=True)]
    tape = Tape(space.in_shape)
    walk_nb201(tape, lambda: lay_nb201_cell(tape, edges), width=2, per_stage=1)
    tape.gap()
    net = build(tape.ops)
    params = {name: value for name, value in net.init(rng=seeded(0)).items() if not name.startswith("stat.")}
    assert _carried(relaxed, edges, fast, params) == {name for name in params if name.endswith(".weight")}
    z = F.layer_norm(net.body(params, tasks.query_x[0]), (relaxed.dim,))
    discrete = F.cross_entropy(z @ fast["weight"].T + fast["bias"], tasks.query_y[0])
    soft = F.cross_entropy(predict(relaxed, fast, tasks.query_x[0], 0.01), tasks.query_y[0])
    assert float(soft) == pytest.approx(float(discrete), abs=1e-3)
    warm = F.cross_entropy(predict(relaxed, fast, tasks.query_x[0], 1.0), tasks.query_y[0])
    assert abs(float(warm) - float(discrete)) > 0.02  # else the test would show nothing


def _carried(relaxed, edges, fast, params):
    """Fill `params` of the discrete network with the kernels of the relaxed one; the names that were filled.

    Every cell of the relaxation has a convolution of 1x1 and one of 3x3 on each edge, in order.
    """
    convs = iter([i for i, op in enumerate(relaxed.ops) if op.kind == "conv"])
    used = []
    for stage in range(3):
        used += [next(convs) for _ in range(3 if stage else 1)]  # of the reduction, or the stem
        for _, name in edges:
            pair = {"nor_conv_1x1": next(convs), "nor_conv_3x3": next(convs)}
            used += [pair[name]] if name in pair else []
    names = [name for name in params if name.endswith(".weight")]
    for name, source in zip(names, used, strict=True):
        assert params[name].shape == fast[f"{source}.weight"].shape
        params[name] = fast[f"{source}.weight"]
    return set(names)


def turned_pool(*, copies, seed):
    """The eight turns and reflections of one tile, 12x12, shifted and noisy: pools and 1x1 see them alike."""
    rng = np.random.default_rng(seed)
    tile = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]) * 200.0
    turns = [np.rot90(side, k) for side in (tile, tile.T) for k in range(4)]
    images = [np.roll(np.tile(turn, (3, 3)), rng.integers(0, 4, 2), (0, 1)) for turn in turns for _ in range(copies)]
    noisy = np.clip(np.stack(images) + rng.normal(0, 10, (8 * copies, 12, 12)), 0, 255).astype(np.uint8)
    by_class = tuple(np.split(np.arange(8 * copies), 8))
    return Pool(torch.from_numpy(noisy[:, None]), 1 / 255, by_class, tuple(map(str, range(8))))


def one_cell(space, width=4):
    """A relaxation in which only a cell's own convolutions see more than a pixel: a stem of 1x1, one cell, no more."""

    def lay(kind, tape, width, depth, stride):
        tape.conv(width, 1, act="relu")
        return candidates._weighed(kind, "cell", tape, partial(lay_nb201_cell, tape))

    kind, tape = replace(candidates.kind_of(space), lay=lay), Tape(space.in_shape)
    weighed = lay(kind, tape, width, 1, 1)
    tape.gap()
    return Relaxed(space, kind, tape.ops, weighed)


def test_logits_move_to_the_operator_that_the_classes_need(cells):
    relaxed, pool = one_cell(cells), turned_pool(copies=12, seed=0)
    settings = Joint(episodes=80, warmup=0.2, way=5, warmup_way=5, alpha_lr=0.2, most_skips=None)
    learned = meta_learn(relaxed, pool, settings, seed=0)
    share = torch.softmax(learned.alpha["cell"][:, relaxed.kind.strong], 1).mean(0)
    assert relaxed.kind.strong[int(share.argmax())] == CONV
    assert share.amax() > 1.3 * share.sort().values[-2]
    tasks = drawn_tasks(pool, settings, 4, 5, 4, rng=np.random.default_rng(9))
    for x, onehot, *_ in zip(*tasks, strict=True):
        fast = adapt(relaxed, learned.slow, Support(x, onehot), coldest=settings.coldest, steps=5)
        assert CONV in relaxed.derive(alpha_of(fast)).picks


def test_steps_lower_the_loss_of_the_support_and_move_everything(relaxed):
    slow, tasks = slow_of(relaxed, seed=0), small_task(1, size=12, dtype=torch.float32)
    support = Support(tasks.x[0], tasks.onehot[0])
    started, after = (adapt(relaxed, slow, support, coldest=1.0, steps=steps) for steps in (1, 8))
    with torch.no_grad():
        before, now = (
            cross_entropy(predict(relaxed, fast, support.x, 1.0), support.onehot) for fast in (started, after)
        )
    assert now < before
    for name, value in slow.items():
        if name.endswith(".weight") or name.startswith(LOGITS):
            assert not torch.equal(value, after[name])


def test_rates_are_learned_and_weights_warm_up_first(celled, relaxed):
    pool = data_pool(celled.data, "train")
    learned = meta_learn(relaxed, pool, QUICK, seed=7)
    begin = {"head": QUICK.head_lr, "body": QUICK.body_lr, "logits": QUICK.logits_lr}
    assert set(learned.rates) == set(begin) and learned.episodes == 6
    for group, rates in learned.rates.items():
        assert len(rates) == QUICK.steps and all(abs(rate / begin[group] - 1) > 1e-3 for rate in rates)
    again = meta_learn(relaxed, pool, replace(QUICK, warmup=0.99), seed=7)
    assert again.losses == () and again.alpha["cell"].abs().max() < 0.01
    assert again.rates["body"] == pytest.approx((QUICK.body_lr,) * QUICK.steps)
    several = meta_learn(relaxed, pool, replace(QUICK, tasks=2, warmup=0.0, second_order=True), seed=7)
    assert len(several.losses) == 3 and several.episodes == 6


def test_the_cells_of_darts_are_searched_too(problem):
    space = darts((1, 12, 12))
    settings = replace(QUICK, depth=3, stride=4, width=1, episodes=2, warmup=0.5, drawn=1, last_steps=1)
    celled = replace(problem, space=space, cap=Cost(flash_kib=150.0))
    searcher = BY_GRADIENT["joint"](space, seed=0, problem=celled, settings=settings)
    asked = [searcher.ask() for _ in range(4)]
    assert len({space.ops(arch) for arch in asked}) == 4 and searcher.found.expected is None
    assert all(celled.bound(arch).fits(celled.cap) for arch in asked)


def test_a_task_gets_an_architecture_of_its_own_under_the_cap(celled, cells):
    settings = replace(QUICK, logits_lr=50.0)
    searcher = JointSearch(cells, seed=0, problem=celled, settings=settings)
    tasks = drawn_tasks(blob_pool(classes=9, seed=2), settings, 6, 4, 0, rng=np.random.default_rng(0))
    supports = [Support(x, onehot) for x, onehot, *_ in zip(*tasks, strict=True)]
    given = [searcher.adapted(support) for support in supports]
    assert len(set(given)) > 1 and all(celled.bound(arch).fits(celled.cap) for arch in given)
    assert searcher.adapted(supports[0]) == given[0]
    first, fresh = searcher.ask(), JointSearch(cells, seed=0, problem=celled, settings=settings)
    assert first == fresh.ask() == searcher.found.first


def test_a_latency_that_weighs_more_is_followed(celled, relaxed):
    """Where every 3x3 convolution costs a millisecond, logits leave it."""
    expected = fit(relaxed, lambda arch: 1.0 + arch.picks.count(CONV), rng=seeded(0), samples=60)
    pool, settings = data_pool(celled.data, "train"), replace(QUICK, episodes=16, warmup=0.1, alpha_lr=0.5)
    learned = meta_learn(relaxed, pool, settings, seed=0, penalty=lambda alpha: 20 * expected.latency_ms(alpha).log())
    assert relaxed.derive(learned.alpha).picks.count(CONV) == 0
    assert float(expected.latency_ms(learned.alpha)) < 1.5


def test_a_collapse_to_skip_connections_is_stopped_before_it_counts(celled, relaxed):
    def pull(alpha):
        return -20 * torch.log_softmax(alpha["cell"], 1)[:, SKIP].sum()

    pool = data_pool(celled.data, "train")
    settings = replace(QUICK, episodes=16, warmup=0.05, alpha_lr=0.002, logits_lr=1e-3, settle=0.0, check_every=1)
    held = {}
    for most in (2, None):
        learned = meta_learn(relaxed, pool, replace(settings, most_skips=most), seed=1, penalty=pull)
        held[most] = skips(relaxed.space, relaxed.derive(learned.alpha))["cell"]
        assert bool(learned.stopped) == (most is not None) == (learned.episodes < 16)
    assert held[2] <= 2 and held[None] > 2


def test_settings_that_search_nothing_are_refused_in_a_line(cells):
    for wrong, said in (
        ({"steps": 0}, "steps = 0 searches nothing; give more than 0"),
        ({"coldest": 0.0}, "coldest = 0.0 is no temperature"),
        ({"warmup": 1.0}, "warmup 1.0 and settle 0.5 are shares"),
        ({"way": 1}, "way 1, warmup_way 20: one class"),
    ):
        with pytest.raises(BadConfig, match=said):
            Joint(**wrong)
    with pytest.raises(BadData, match="lower way, shot or query"):
        meta_learn(relax(cells, width=1), blob_pool(classes=1, seed=0), QUICK, seed=0)
