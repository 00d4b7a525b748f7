"""The meta-learned searcher: a policy over architectures that has seen many (task, device, budget) triples.

One forward pass proposes for a new triple; what is measured then decides among the proposals (`meta_searcher`). The
parts (`tasks.policy`): a graph convolution embeds the task, the posterior of a few timings (`latency.fewshot`) embeds
the device, the budget stands beside them. Meta-learning the structure with the strategy of adapting it is MetaNAS
(Elsken 2020, arXiv:1911.11090); departures: the policy is conditioned on the triple, and no weights of networks are
shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgemeta.contracts import Params
from edgemeta.errors import BadData
from edgemeta.learners.adam import Adam
from edgemeta.space.space import Space
from edgemeta.tasks import policy
from edgemeta.tasks.policy import TaskGraph, task_graph
from edgemeta.types import Arch

ANCHORS = 24  # networks whose latencies tell a device
SHARP = 0.25  # temperature of the networks that are taught, in standard deviations of the better half's scores
TAUGHT = 16  # networks of a triple
TIGHTEST = 0.03  # share of the networks that the tightest cap of a triple leaves
BATCH = 64  # triples of an update


class Sources(NamedTuple):
    """What is known beforehand: networks of one space, scored on source tasks and timed on source devices."""

    picks: np.ndarray  # (networks, slots)
    scores: Mapping[str, np.ndarray]  # task -> (networks,) points
    attributes: Mapping[str, Mapping[str, float]]  # task -> of `policy.ATTRIBUTES`
    log_ms: Mapping[str, np.ndarray]  # device -> (networks,)


class Knowledge(NamedTuple):
    """What meta-training leaves."""

    slots: tuple[int, ...]  # options of each
    params: Params
    anchors: np.ndarray  # (ANCHORS, slots) picks of the networks whose latencies tell a device
    tasks: Mapping[str, Mapping[str, float]]  # what a new task is likened to: attributes of the sources
    centre: np.ndarray  # (tasks,) points: median score of the better half
    unit: np.ndarray  # (tasks,) points: standard deviation of that half
    doubt: float = 0.0  # how far attributes of tasks are not to be trusted


class Triple(NamedTuple):
    """A search to come: a task, a device as the log latencies (anchors,) believed of it, and a budget."""

    graph: TaskGraph
    log_ms: np.ndarray
    cap_ms: float


class Lessons(NamedTuple):
    """Triples (t, ...) to learn from."""

    graph: TaskGraph
    shares: Tensor  # (t, tasks) of the source tasks in each task
    misled: Tensor  # (t,) True where the policy is told of another triple's task
    numbers: Tensor  # (t, ANCHORS + 1) device and budget
    taught: Tensor  # (t, TAUGHT, slots) good networks under the cap


def meta_train(
    space: Space,
    sources: Sources,
    *,
    seed: int,
    triples: int = 2000,
    steps: tuple[int, int, int] = (150, 500, 250),
    lr: float = 0.005,
    doubt: float = 0.0,
) -> Knowledge:
    """Learn from random triples: convex mixtures of source tasks, of source devices, and caps of every tightness.

    `steps`: the embedding learns to tell mixtures apart; then the policy learns on it; then all are fine-tuned together
    at a third of the rate. The policy is taught the Boltzmann distribution of scores under the cap, which is
    what maximum-entropy reinforcement learning tends to (Levine 2018, arXiv:1805.00909, sec. 2), without its sampling
    noise: the sources' scores are known. Deterministic given the seed.

    `doubt` is how far attributes of tasks are not to be trusted, 0..1; `little_known` has a rule for it. So often the
    policy is told of another task than the one that it is taught, and it learns to look past what it is told.
    """
    slots = tuple(len(options) for _, options in space.slots)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    params = policy.init(slots, ANCHORS + 1, len(sources.scores), rng=generator)
    half = [np.sort(score)[len(score) // 2 :] for score in sources.scores.values()]
    rows = rng.choice(len(sources.picks), min(ANCHORS, len(sources.picks)), replace=False)
    if len(rows) < ANCHORS:
        raise BadData(f"{len(sources.picks)} networks teach nothing of a device; give at least {ANCHORS}")
    centre, unit = np.array([np.median(of) for of in half]), np.array([of.std() for of in half])
    tasks = {name: sources.attributes[name] for name in sources.scores}
    knowledge = Knowledge(slots, params, sources.picks[rows], tasks, centre, unit, doubt)
    lessons = _lessons(knowledge, sources, rows, triples, rng)
    knowledge = knowledge._replace(params=policy.with_units(params, lessons.graph))
    for stage, count, rate in zip(("task.", "policy.", ""), steps, (lr, lr, lr / 3), strict=True):
        _learn(knowledge, lessons, (stage, "mix.") if stage else ("",), count, rate, generator)
    return knowledge


def _lessons(
    knowledge: Knowledge, sources: Sources, anchors: np.ndarray, count: int, rng: np.random.Generator
) -> Lessons:
    scores = np.array(list(sources.scores.values()))
    scores = np.maximum((scores - knowledge.centre[:, None]) / knowledge.unit[:, None], -3.0)
    times = np.array([log - log[anchors].mean() for log in sources.log_ms.values()])
    picks = torch.as_tensor(sources.picks)
    graphs, shares, numbers, taught = [], [], [], []
    for _ in range(count):
        mix, log = _mixed(len(scores), rng), _mixed(len(times), rng) @ times
        found, cap = mix @ scores, np.quantile(log, rng.uniform(TIGHTEST, 1.0))
        weight = np.where(log <= cap, np.exp(np.minimum(0.0, (found - found[log <= cap].max()) / SHARP)), 0.0)
        good = rng.choice(len(found), TAUGHT, p=weight / weight.sum())
        graphs.append(task_graph(_between(list(knowledge.tasks.values()), mix)))
        shares.append(mix)
        numbers.append(_numbers(log[anchors], cap))
        taught.append(picks[good])
    graph = TaskGraph(torch.stack([g.nodes for g in graphs]), torch.stack([g.edges for g in graphs]))
    plain = [torch.tensor(np.array(rows), dtype=torch.float32) for rows in (shares, numbers)]
    misled = torch.tensor(rng.uniform(size=count) < knowledge.doubt)
    return Lessons(graph, plain[0], misled, plain[1], torch.stack(taught))


def _mixed(count: int, rng: np.random.Generator) -> np.ndarray:
    """Shares (count,) of one half of the time, of two otherwise."""
    shares = np.zeros(count)
    some = rng.permutation(count)[:2]
    part = rng.uniform() if rng.uniform() < 0.5 else 1.0
    shares[some[0]] += part
    shares[some[-1]] += 1 - part
    return shares


def _between(attributes: Sequence[Mapping[str, float]], shares: np.ndarray) -> dict[str, float]:
    """Of a mixture of tasks: geometric means."""
    names = [name for name in policy.ATTRIBUTES if all(name in of for of in attributes)]
    logs = np.array([[np.log(of[name]) for name in names] for of in attributes])
    return dict(zip(names, np.exp(shares @ logs).tolist(), strict=True))


def _numbers(log_ms: np.ndarray, log_cap: float) -> np.ndarray:
    """(ANCHORS + 1,): how the device's latencies differ, and how far the budget is from their mean."""
    return np.append(log_ms - log_ms.mean(), log_cap - log_ms.mean())


def _learn(
    knowledge: Knowledge,
    lessons: Lessons,
    prefixes: tuple[str, ...],
    steps: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Updates, in place, of the parameters whose names begin with one of `prefixes`."""
    params = knowledge.params
    trained = (name for name in params if name.startswith(prefixes) and not name.startswith("stat."))
    leaves = [params[name].requires_grad_() for name in trained]
    optimizer = Adam(leaves, lr)
    for _ in range(steps):
        rows = torch.randint(len(lessons.shares), (BATCH,), generator=generator)
        loss = _loss(knowledge, lessons, rows)
        optimizer.step(torch.autograd.grad(loss, leaves, allow_unused=True))
    for value in leaves:
        value.requires_grad_(False)


def _loss(knowledge: Knowledge, lessons: Lessons, rows: Tensor) -> Tensor:
    params, slots = knowledge.params, knowledge.slots
    e = policy.embed_task(params, TaskGraph(lessons.graph.nodes[rows], lessons.graph.edges[rows]))
    likeness = -(lessons.shares[rows] * policy.mixture(params, e).clamp_min(1e-9).log()).sum(-1).mean()
    told = torch.where(lessons.misled[rows][:, None], e.roll(1, 0), e)
    context = torch.cat([told, lessons.numbers[rows]], 1).repeat_interleave(TAUGHT, 0)
    likelihood = policy.log_prob(params, slots, context, lessons.taught[rows].flatten(0, 1)).mean()
    return likeness - likelihood


def context_of(knowledge: Knowledge, triple: Triple) -> Tensor:
    """What the policy is told of a triple: (DIM + ANCHORS + 1,)."""
    numbers = torch.tensor(_numbers(triple.log_ms, float(np.log(triple.cap_ms))), dtype=torch.float32)
    return torch.cat([policy.embed_task(knowledge.params, triple.graph), numbers])


def propose(knowledge: Knowledge, space: Space, triple: Triple, *, count: int, seed: int) -> list[Arch]:
    """Distinct architectures among `count` samples of the policy: one forward pass, and nothing is measured."""
    generator = torch.Generator().manual_seed(seed)
    picks, _ = policy.sample(knowledge.params, knowledge.slots, context_of(knowledge, triple), count, rng=generator)
    return list(dict.fromkeys(Arch(space.name, tuple(row)) for row in picks.tolist()))


def likeness(knowledge: Knowledge, graph: TaskGraph) -> np.ndarray:
    """(tasks,) how much a task is like each source task."""
    return policy.mixture(knowledge.params, policy.embed_task(knowledge.params, graph)).numpy().astype(float)


def little_known(tasks: int) -> float:
    """The doubt after so many source tasks.

    Two tell how much tasks have in common, and nothing of how that falls with the distance of their attributes; of n
    tasks the distance has n - 2 of the n - 1 things that there are to learn.

    >>> [little_known(tasks) for tasks in (2, 3, 5)]
    [1.0, 0.5, 0.25]
    """
    return 1 / max(1, tasks - 1)


def trusted(knowledge: Knowledge, graph: TaskGraph) -> np.ndarray:
    """(tasks,) how much each source's scores weigh on a task: likeness as far as it can be trusted, else all alike."""
    shares = likeness(knowledge, graph)
    return (1 - knowledge.doubt) * shares + knowledge.doubt / len(shares)


def scores_of(knowledge: Knowledge, graph: TaskGraph, known: np.ndarray) -> np.ndarray:
    """(n,) points expected on a task: `known` (tasks, n) are the sources' scores, weighed as `trusted` has it."""
    shares = trusted(knowledge, graph)
    scores = shares @ ((known - knowledge.centre[:, None]) / knowledge.unit[:, None])
    return shares @ knowledge.centre + (shares @ knowledge.unit) * scores
