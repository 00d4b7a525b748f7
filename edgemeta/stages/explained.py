"""What the meta-learned searcher decides for a problem, and what that depends on."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemeta.latency.profile import measured
from edgemeta.latency.table import predictor
from edgemeta.search import knowledge
from edgemeta.search.explain import explain
from edgemeta.search.problem import Problem
from edgemeta.tasks.policy import task_graph
from edgemeta.types import Arch

BUDGETS = (0.02, 0.15, 0.4, 0.7, 0.95)  # shares of networks under them


def note(problem: Problem) -> dict[str, Any] | None:
    """As JSON for the run folder; None where nothing is known of the space.

    Compared are the problem's task with those that taught the policy, its device with those that ship, and five
    latency budgets. The probabilities are those of the problem's own task and device.
    """
    known = knowledge.known(problem.space)
    if known is None:
        return None
    own = knowledge.triple(known, problem)
    graphs = [own.graph, *(task_graph(attributes) for attributes in known.tasks.values())]
    archs = [Arch(problem.space.name, tuple(row)) for row in known.anchors.tolist()]
    budgets = np.quantile(own.log_ms, BUDGETS) - own.log_ms.mean()
    found = explain(known, graphs, [own.log_ms, *_others(problem, archs)], budgets.tolist(), seed=problem.seed)
    return {
        "decisions": [[name, [str(option) for option in options]] for name, options in problem.space.slots],
        "changes": {name: found.changes[name].tolist() for name in ("budget", "device", "task")},
        "budgets_ms": np.exp(budgets + own.log_ms.mean()).tolist(),
        "probability": found.probability[0, 0].tolist(),
    }


def _others(problem: Problem, archs: list[Arch]) -> list[np.ndarray]:
    """Log latencies of networks on the real devices that ship, as far as they were timed in the problem's space."""
    found = []
    for profile in measured():
        if profile.device != problem.device and any(net.arch.space == problem.space.name for net in profile.nets):
            latency = predictor(profile)
            found.append(np.log([latency.latency(problem.space.ops(arch)).ms for arch in archs]))
    return found
