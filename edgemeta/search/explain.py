"""What the meta-learned searcher decides where: which decisions change with the task, the device and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from edgemeta.search.metapolicy import Knowledge, Triple, context_of
from edgemeta.tasks import policy
from edgemeta.tasks.policy import TaskGraph


class Explained(NamedTuple):
    """What the policy decides where: probabilities and how much they change."""

    probability: np.ndarray  # (tasks, devices, budgets, options of all slots)
    changes: Mapping[str, np.ndarray]  # "task", "device", "budget" -> (slots,)


def explain(
    knowledge: Knowledge,
    tasks: Sequence[TaskGraph],
    devices: Sequence[np.ndarray],
    budgets: Sequence[float],
    *,
    seed: int,
    count: int = 256,
) -> Explained:
    """Which decisions change with task, device and budget. devices: log latencies (anchors,); budgets: caps as logs,
    relative to the mean of those.

    A change is the total variation distance, 0 to 1, between the marginals of one value and the mean over all values,
    averaged over the values and over what else differs.
    """
    rows = [
        policy.sample(
            knowledge.params,
            knowledge.slots,
            context_of(knowledge, Triple(graph, log_ms, float(np.exp(log_ms.mean() + budget)))),
            count,
            rng=torch.Generator().manual_seed(seed),
        )[1].numpy()
        for graph in tasks
        for log_ms in devices
        for budget in budgets
    ]
    found = np.array(rows).reshape(len(tasks), len(devices), len(budgets), -1)
    starts = np.cumsum([0, *knowledge.slots[:-1]])
    changes = {}
    for axis, name in enumerate(("task", "device", "budget")):
        away = np.abs(found - found.mean(axis, keepdims=True)).mean((0, 1, 2))
        changes[name] = np.add.reduceat(away, starts) / 2
    return Explained(found, changes)
