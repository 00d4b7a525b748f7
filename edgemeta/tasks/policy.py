"""A task as a graph, its embedding by graph convolution, and a distribution over architectures that depends on it.

Functions of a dict of tensors, as everywhere: `init` makes the parameters, and training is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgemeta.contracts import Params
from edgemeta.errors import BadConfig, nearest

# Examples of a class to learn from beforehand, and on the device; pixels of a side.
ATTRIBUTES = ("classes", "examples", "shots", "channels", "resolution", "epochs")
KINDS = (*ATTRIBUTES, "class", "task")
RELATED = (("classes", "examples"), ("examples", "shots"), ("channels", "resolution"), ("examples", "epochs"))
NUMBERS = 3  # of a node, behind its kind
NODE = len(KINDS) + NUMBERS
OCTAVES = 4.0  # attributes are in units of 2^4
DIM = 8  # of an embedding
TINY = 1e-8
MEAN, SCALE = "stat.node.mean", "stat.node.scale"  # units of the numbers of each kind of node: see `with_units`
FARTHEST = 3.0  # units: a task farther out than those seen is taken for one there


class TaskGraph(NamedTuple):
    """nodes (..., n, NODE), edges (..., n, n) symmetric and >= 0. The order of the nodes means nothing."""

    nodes: Tensor
    edges: Tensor


def task_graph(attributes: Mapping[str, float], prototypes: Tensor | None = None) -> TaskGraph:
    """A node for the task, one for each attribute that is known, one for each class: prototypes (way, d).

    A class node says how far its prototype is from the middle, from the nearest other and from the others, in mean
    distances, so that neither the unit nor a rotation of the features matters; similar classes are joined strongly.

    >>> task_graph({"classes": 10, "resolution": 32}).nodes.shape == (3, NODE)
    True
    """
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise BadConfig(f"a task has no attribute {name!r}; {nearest(name, ATTRIBUTES)}")
        if not (value > 0 and math.isfinite(value)):
            raise BadConfig(f"attribute {name} is {value:g}; leave out what is unknown, and give positive numbers")
    names = ("task", *attributes)
    rows = [_node(name, [math.log2(attributes.get(name, 1.0)) / OCTAVES, 0.0, 0.0]) for name in names]
    edges = torch.zeros(len(names), len(names))
    edges[0, 1:] = 1.0
    for one, other in RELATED:
        if one in attributes and other in attributes:
            edges[names.index(one), names.index(other)] = 1.0
    edges = edges + edges.T
    if prototypes is None:
        return TaskGraph(torch.stack(rows), edges)
    numbers, similar = _relations(prototypes)
    nodes = torch.stack(rows + [_node("class", row.tolist()) for row in numbers])
    joined = torch.zeros(len(nodes), len(nodes))
    joined[: len(names), : len(names)] = edges
    joined[len(names) :, len(names) :] = similar / max(1, len(similar) - 1)
    joined[0, len(names) :] = joined[len(names) :, 0] = 1.0
    return TaskGraph(nodes, joined)


def _node(kind: str, numbers: Sequence[float]) -> Tensor:
    return torch.tensor([float(kind == name) for name in KINDS] + list(numbers))


def _relations(prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers (way, NUMBERS) and similarities (way, way), 0 on the diagonal, of class prototypes (way, d)."""
    way = len(prototypes)
    distance = torch.cdist(prototypes, prototypes)
    mean = distance.sum() / max(1, way * (way - 1)) + TINY
    middle = (prototypes - prototypes.mean(0)).norm(dim=1)
    away = distance + torch.eye(way) * distance.max()
    numbers = torch.stack([middle, away.amin(1), distance.sum(1) / max(1, way - 1)], 1) / mean
    return numbers, torch.exp(-((distance / mean) ** 2)) * (1 - torch.eye(way))


def init(slots: Sequence[int], context: int, tasks: int, *, hidden: int = 64, rng: torch.Generator) -> Params:
    """Parameters of embedding, mixture and policy. slots: options of each; context: numbers beside the embedding;
    tasks: source tasks that a new one is likened to. The policy begins uniform: its last layer is zero."""
    options = sum(slots)

    def drawn(fan_in: int, fan_out: int) -> Tensor:
        return torch.randn(fan_in, fan_out, generator=rng) / math.sqrt(fan_in)

    return {
        MEAN: torch.zeros(len(KINDS), NUMBERS),
        SCALE: torch.ones(len(KINDS), NUMBERS),
        "task.1.weight": drawn(NODE, 2 * DIM),
        "task.1.bias": torch.zeros(2 * DIM),
        "task.2.weight": drawn(2 * DIM, DIM),
        "task.2.bias": torch.zeros(DIM),
        "mix.weight": torch.zeros(DIM, tasks),
        "mix.bias": torch.zeros(tasks),
        "policy.context.weight": drawn(DIM + context, hidden),
        "policy.context.bias": torch.zeros(hidden),
        "policy.hidden.weight": drawn(hidden, hidden),
        "policy.pick.weight": drawn(hidden, options).T.contiguous(),
        "policy.out.weight": torch.zeros(options, hidden),
        "policy.out.bias": torch.zeros(options),
    }


def embed_task(params: Params, graph: TaskGraph) -> Tensor:
    """(..., DIM): two graph convolutions (Kipf 2017, arXiv:1609.02907, eq. 2), then the sum over kinds of nodes.

    A kind counts by the mean of its nodes: a hundred classes must not drown the attributes. Numbers are in units of the
    tasks that were learned from: what sets these apart is little beside what all have in common.
    """
    kinds, numbers = graph.nodes.split([len(KINDS), NUMBERS], -1)
    numbers = ((numbers - kinds @ params[MEAN]) * (kinds @ params[SCALE])).clamp(-FARTHEST, FARTHEST)
    size = graph.edges.shape[-1]
    edges = graph.edges + torch.eye(size)
    degree = edges.sum(-1).rsqrt()
    spread = degree[..., :, None] * edges * degree[..., None, :]
    h = torch.cat([kinds, numbers], -1)
    for layer in (1, 2):
        h = torch.tanh(spread @ h @ params[f"task.{layer}.weight"] + params[f"task.{layer}.bias"])
    weight = (kinds / kinds.sum(-2, keepdim=True).clamp_min(1.0)).sum(-1, keepdim=True)
    return (weight * h).sum(-2)


def with_units(params: Params, graph: TaskGraph) -> Params:
    """`params` with the units of tasks, graph (tasks, n, ...); a number equal for all of them has no say."""
    kinds, numbers = graph.nodes.flatten(0, -2).split([len(KINDS), NUMBERS], -1)
    count = kinds.sum(0).clamp_min(1.0)[:, None]
    mean = kinds.T @ numbers / count
    spread = (kinds.T @ (numbers - kinds @ mean).square() / count).sqrt()
    return params | {MEAN: mean, SCALE: torch.where(spread > 1e-4, 1 / spread.clamp_min(TINY), 0.0)}


def mixture(params: Params, e: Tensor) -> Tensor:
    """How much a task of embedding e (..., DIM) is like each source task: (..., tasks), adding up to one."""
    return torch.softmax(e @ params["mix.weight"] + params["mix.bias"], -1)


def hidden_of(params: Params, context: Tensor) -> Tensor:
    """What a context (..., DIM + numbers) contributes to every hidden state: (..., hidden)."""
    first = torch.tanh(context @ params["policy.context.weight"] + params["policy.context.bias"])
    return first @ params["policy.hidden.weight"]


def log_prob(params: Params, slots: Sequence[int], context: Tensor, picks: Tensor) -> Tensor:
    """(n,) of picks (n, slots) int64 under contexts (n, DIM + numbers).

    Each slot is decided in view of all before it: the neural autoregressive distribution estimator (Larochelle 2011,
    JMLR W&CP 15, eqs. 1-3) for choices among several, with a context added to its hidden states.
    """
    base = hidden_of(params, context)
    places = picks + _offsets(slots)
    before = params["policy.pick.weight"][places].cumsum(1)
    before = torch.cat([torch.zeros_like(before[:, :1]), before[:, :-1]], 1)
    logits = _logits(params, base[:, None] + before) + _mask(slots)
    return logits.log_softmax(-1).gather(-1, places[..., None])[..., 0].sum(1)


def sample(
    params: Params, slots: Sequence[int], context: Tensor, count: int, *, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Picks (count, slots) under one context (DIM + numbers,), and the mean probabilities (options of all slots,).

    The latter are the marginals of the policy, estimated by the conditional probabilities along the samples.
    """
    with torch.no_grad():
        state = hidden_of(params, context).expand(count, -1)
        picked, marginal = [], []
        for first, options in zip(_offsets(slots).tolist(), slots, strict=True):
            probability = _logits(params, state)[:, first : first + options].softmax(-1)
            pick = torch.multinomial(probability, 1, generator=rng)[:, 0]
            state = state + params["policy.pick.weight"][first + pick]
            picked.append(pick)
            marginal.append(probability.mean(0))
        return torch.stack(picked, 1), torch.cat(marginal)


def _logits(params: Params, state: Tensor) -> Tensor:
    return torch.tanh(state) @ params["policy.out.weight"].T + params["policy.out.bias"]


def _offsets(slots: Sequence[int]) -> Tensor:
    return torch.tensor([0, *slots[:-1]]).cumsum(0)


def _mask(slots: Sequence[int]) -> Tensor:
    """(slots, options of all slots): 0 where an option is of the slot, else -inf."""
    owner = torch.repeat_interleave(torch.arange(len(slots)), torch.tensor(list(slots)))
    return torch.where(owner == torch.arange(len(slots))[:, None], 0.0, -math.inf)
