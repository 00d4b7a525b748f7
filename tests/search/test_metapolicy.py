"""A policy that has learned from some tasks and devices, asked about others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edgemeta.errors import BadConfig, BadData
from edgemeta.search import metapolicy
from edgemeta.search.explain import explain
from edgemeta.search.meta_searcher import MetaPolicy, _quantiles
from edgemeta.search.metapolicy import Sources, Triple, context_of, likeness, meta_train, propose
from edgemeta.tasks import policy
from edgemeta.tasks.policy import task_graph
from edgemeta.types import Arch, Cost, Trial

OPTIONS = 4
SIZES = {"small": {"classes": 4, "resolution": 8}, "large": {"classes": 256, "resolution": 64}}


class Hill:
    """Four slots of four options; what they score and take is the test's."""

    name = "hill"
    slots = tuple((f"slot{i}", tuple(range(OPTIONS))) for i in range(4))

    def options(self, slot):
        return range(OPTIONS)

    def sample(self, *, rng):
        return Arch(self.name, tuple(rng.randrange(OPTIONS) for _ in range(4)))


@pytest.fixture(scope="module")
def sources():
    """The small task wants much in slots 0 and 1, the large one in slots 1 and 2. Slot 3 is for nothing. Devices take
    the longer, the more is picked: one for slots 0 to 2 alike, the other for slot 1 most."""
    picks = np.array(list(itertools.product(range(OPTIONS), repeat=4)))
    scores = {"small": 60 + picks @ [3, 3, 0, 0.0], "large": 40 + picks @ [0, 3, 3, 0.0]}
    log_ms = {"even": np.log(1 + picks @ [1, 1, 1, 0.0]), "second": np.log(1 + picks @ [0.3, 3, 0.3, 0])}
    return Sources(picks, scores, SIZES, log_ms)


@pytest.fixture(scope="module")
def knowledge(sources):
    return meta_train(Hill(), sources, seed=0, triples=300, steps=(60, 120, 60), lr=0.01)


def anchors_of(knowledge, sources):
    row = {tuple(picks): i for i, picks in enumerate(sources.picks.tolist())}
    return [row[tuple(picks)] for picks in knowledge.anchors.tolist()]


def triple(knowledge, sources, task, device, cap_ms):
    return Triple(task_graph(SIZES[task]), sources.log_ms[device][anchors_of(knowledge, sources)], cap_ms)


def mean_picks(knowledge, asked):
    archs, _ = policy.sample(
        knowledge.params,
        knowledge.slots,
        context_of(knowledge, asked),
        400,
        rng=torch.Generator().manual_seed(0),
    )
    return archs.float().mean(0)


def test_proposals_follow_the_task_and_the_budget(knowledge, sources):
    small, large = (mean_picks(knowledge, triple(knowledge, sources, name, "even", 6.0)) for name in SIZES)
    assert small[0] > large[0] + 0.5 and large[2] > small[2] + 0.5
    tight, loose = (mean_picks(knowledge, triple(knowledge, sources, "small", "even", ms)) for ms in (2.0, 9.0))
    assert (loose[:2] > tight[:2] + 0.5).all()


def test_proposals_follow_the_device(knowledge, sources):
    even, second = (mean_picks(knowledge, triple(knowledge, sources, "small", name, 4.0)) for name in sources.log_ms)
    assert second[1] < even[1] - 0.3


def test_one_forward_pass_proposes_good_networks_under_the_cap(knowledge, sources):
    asked = triple(knowledge, sources, "small", "even", 5.0)
    row = {tuple(picks): i for i, picks in enumerate(sources.picks.tolist())}
    rows = np.array([row[arch.picks] for arch in propose(knowledge, Hill(), asked, count=40, seed=1)])
    assert len(set(rows)) == len(rows)
    fit = np.exp(sources.log_ms["even"]) <= 5.0
    assert (~fit[rows]).mean() < (~fit).mean() / 2
    assert sources.scores["small"][rows][fit[rows]].max() == sources.scores["small"][fit].max()


def test_a_task_between_the_sources_is_like_both(knowledge):
    near = {name: likeness(knowledge, task_graph(size)) for name, size in SIZES.items()}
    assert near["small"][0] > 0.8 and near["large"][1] > 0.8
    between = likeness(knowledge, task_graph({"classes": 32, "resolution": 23}))
    assert 0.2 < between[0] < 0.8 and between.sum() == pytest.approx(1)


def test_known_scores_are_weighed_by_likeness(knowledge, sources):
    known = np.array(list(sources.scores.values()))
    found = metapolicy.scores_of(knowledge, task_graph(SIZES["large"]), known)
    assert np.corrcoef(found, sources.scores["large"])[0, 1] > 0.95


def test_what_is_in_doubt_is_not_relied_on(knowledge, sources):
    """Two tasks say nothing of how far attributes can be trusted: both count alike, and proposals look past them."""
    assert [metapolicy.little_known(tasks) for tasks in (1, 2, 3, 5)] == [1, 1, 0.5, 0.25]
    doubting = meta_train(Hill(), sources, seed=0, triples=300, steps=(60, 120, 60), lr=0.01, doubt=1.0)
    large, known = task_graph(SIZES["large"]), np.array(list(sources.scores.values()))
    assert likeness(doubting, large)[1] > 0.8 and metapolicy.trusted(doubting, large) == pytest.approx([0.5, 0.5])
    found = metapolicy.scores_of(doubting, large, known)
    assert np.corrcoef(found, known.mean(0))[0, 1] > 0.99
    apart = [
        (mean_picks(own, triple(own, sources, "small", "even", 6.0))
         - mean_picks(own, triple(own, sources, "large", "even", 6.0))).abs().max()
        for own in (doubting, knowledge)
    ]  # fmt: skip
    assert apart[0] < apart[1] / 3


def test_tasks_that_differ_in_a_few_attributes_are_told_apart(sources):
    """Real attributes: what differs is little beside what is equal, and some of it is."""
    shared = {"channels": 3, "epochs": 200}
    sizes = {"small": {"classes": 10, "examples": 5000, "resolution": 32} | shared}
    sizes["large"] = {"classes": 120, "examples": 1264, "resolution": 16} | shared
    few = {"triples": 200, "steps": (100, 1, 1), "lr": 0.01}
    found = meta_train(Hill(), sources._replace(attributes=sizes), seed=0, **few)
    assert likeness(found, task_graph(sizes["small"]))[0] > 0.8
    assert likeness(found, task_graph(sizes["large"]))[1] > 0.8


def test_it_explains_which_decisions_change_with_what(knowledge, sources):
    graphs = [task_graph(size) for size in SIZES.values()]
    devices = [log[anchors_of(knowledge, sources)] for log in sources.log_ms.values()]
    found = explain(knowledge, graphs, devices, (-0.7, 0.0, 0.5), seed=0)
    assert found.probability.shape == (2, 2, 3, 4 * OPTIONS)
    assert found.probability.reshape(2, 2, 3, 4, OPTIONS).sum(-1) == pytest.approx(1, abs=1e-4)
    assert found.changes["task"][[0, 2]].min() > found.changes["task"][3]
    assert found.changes["budget"][1] > found.changes["budget"][3]
    assert all((change >= 0).all() and (change <= 1).all() for change in found.changes.values())


def test_the_seed_decides_what_is_learned(sources):
    few = {"triples": 20, "steps": (2, 3, 2)}
    one, same, other = (meta_train(Hill(), sources, seed=seed, **few).params for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_three_stages_teach_their_parts(sources):
    start = meta_train(Hill(), sources, seed=0, triples=20, steps=(0, 0, 0)).params
    for steps, moved in (((1, 0, 0), "task."), ((0, 1, 0), "policy.out"), ((0, 0, 1), "policy.out")):
        after = meta_train(Hill(), sources, seed=0, triples=20, steps=steps).params
        assert any(not torch.equal(start[n], after[n]) for n in after if n.startswith((moved, "mix.")))
    kept = meta_train(Hill(), sources, seed=0, triples=20, steps=(3, 0, 0)).params
    assert all(torch.equal(start[name], kept[name]) for name in kept if name.startswith("policy."))


def test_too_few_networks_teach_nothing(sources):
    few = Sources(sources.picks[:9], {k: v[:9] for k, v in sources.scores.items()}, SIZES,
                  {k: v[:9] for k, v in sources.log_ms.items()})  # fmt: skip
    with pytest.raises(BadData, match="9 networks teach nothing of a device; give at least 24"):
        meta_train(Hill(), few, seed=0)


def tell(searcher, arch, score):
    status = "ok" if score is not None else "infeasible"
    searcher.tell(Trial(arch, Cost(1.0), score, None, 1, 0, 0.0, "metapolicy", status))


def mean_score(archs):
    return np.mean([sum(arch.picks) for arch in archs])


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_told_moves_what_is_asked(seed):
    searcher, asked = MetaPolicy(Hill(), seed=seed), []
    for _ in range(40):
        asked.append(searcher.ask())
        tell(searcher, asked[-1], sum(asked[-1].picks) / 12)
    assert len(set(asked)) == 40 and max(sum(arch.picks) for arch in asked) == 12
    assert mean_score(asked[8:24]) > 6 + 2  # 6 is what a random one has


def test_what_does_not_fit_is_shunned():
    searcher, asked = MetaPolicy(Hill(), seed=0), []
    for _ in range(80):
        asked.append(searcher.ask())
        tell(searcher, asked[-1], None if asked[-1].picks[0] > 0 else 0.5)
    assert np.mean([arch.picks[0] == 0 for arch in asked[-30:]]) > 0.5


def test_with_knowledge_the_first_proposals_are_good_already(knowledge, sources):
    asked = triple(knowledge, sources, "small", "even", 7.0)
    knowing, fresh = MetaPolicy(Hill(), seed=0, knowledge=knowledge, triple=asked), MetaPolicy(Hill(), seed=0)
    good = [np.mean([sum(s.ask().picks[:2]) for _ in range(40)]) for s in (knowing, fresh)]
    assert good[0] > good[1] + 0.7


def test_knowledge_without_a_triple_is_refused(knowledge):
    with pytest.raises(BadData, match="give both or neither"):
        MetaPolicy(Hill(), seed=0, knowledge=knowledge)


def test_equal_scores_have_equal_quantiles():
    assert _quantiles([0.3, 0.1, 0.3, 0.9]).tolist() == pytest.approx([0, -1.1503, 0, 1.1503], abs=1e-4)


def test_the_order_of_nodes_and_the_number_of_classes_hold_no_sway(generator):
    """Relabelling classes changes nothing; nor does a rotation or another unit of the features."""
    params = policy.init((2, 3), 1, 2, rng=generator)
    prototypes = torch.randn(6, 5, generator=generator)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    size = {"classes": 6, "resolution": 28}
    base = policy.embed_task(params, task_graph(size, prototypes))
    for same in (prototypes.flip(0), 3 * prototypes @ turn + 1):
        assert torch.allclose(policy.embed_task(params, task_graph(size, same)), base, atol=1e-4)
    order = torch.randperm(9, generator=generator)
    graph = task_graph(size, prototypes)
    mixed = policy.TaskGraph(graph.nodes[order], graph.edges[order][:, order])
    assert torch.allclose(policy.embed_task(params, mixed), base, atol=1e-5)
    assert not torch.allclose(policy.embed_task(params, task_graph(size)), base, atol=1e-3)


def test_probabilities_add_up_and_samples_follow_them(generator):
    slots = (2, 3, 2)
    params = policy.init(slots, 1, 2, rng=generator)
    params["policy.out.weight"] = torch.randn(7, 64, generator=generator) / 4
    context = torch.randn(policy.DIM + 1, generator=generator)
    every = torch.tensor(list(itertools.product(range(2), range(3), range(2))))
    probability = policy.log_prob(params, slots, context.expand(12, -1), every).exp()
    assert probability.sum() == pytest.approx(1, abs=1e-5) and probability.max() > 1.3 / 12
    picks, marginal = policy.sample(params, slots, context, 20000, rng=generator)
    share = torch.stack([(picks == row).all(1).float().mean() for row in every])
    assert torch.allclose(share, probability, atol=0.02)
    assert torch.allclose(marginal[:2], torch.stack([probability[:6].sum(), probability[6:].sum()]), atol=1e-5)


def test_unknown_and_impossible_attributes_are_refused():
    with pytest.raises(BadConfig, match="no attribute 'clases'; did you mean 'classes'"):
        task_graph({"clases": 10})
    with pytest.raises(BadConfig, match="attribute classes is 0; leave out what is unknown"):
        task_graph({"classes": 0})
