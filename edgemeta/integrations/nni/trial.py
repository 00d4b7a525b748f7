"""One trial of an experiment: train and score one architecture, and say which it was.

    python -m edgemeta.integrations.nni.trial

in the folder that `task.write` filled. NNI starts it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgemeta.errors import EdgemetaError
from edgemeta.integrations.nni.processes import end_with_manager


def main() -> int:
    """Report score, its interval, picks, latency (ms), RAM (KiB), episodes and seconds; 2 where it could not."""
    end_with_manager()
    import nni  # after that: importing takes seconds in which the manager may go
    import torch

    from edgemeta.integrations.nni import task
    from edgemeta.integrations.nni.spaces import arch_of
    from edgemeta.search.jobs import run_job

    torch.set_num_threads(1)
    try:
        problem = task.read(Path.cwd(), head=False)
        arch = arch_of(nni.get_next_parameter(), problem.space)
        cost = problem.cost(arch)
        result = run_job(problem.job(arch, 0))
    except EdgemetaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    nni.report_final_result(
        {
            "default": result.score.mean,
            "score_ci": result.score.ci95,
            "picks": list(arch.picks),
            "latency_ms": cost.latency_ms,
            "ram_kib": cost.ram_kib,
            "fidelity": problem.rungs[0],
            "seconds": result.seconds,
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
