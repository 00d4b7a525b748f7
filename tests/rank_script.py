"""What torchrun's agent starts in a test: a training whose second process is killed on its first way through."""

import os
import signal
from functools import partial
from pathlib import Path

from safetensors.torch import save_file

from edgemeta.learners.group import Group
from edgemeta.learners.ranks import Ranks
from edgemeta.learners.settings import Training
from tests.crews import crew, trained_on

SETTINGS = Training(40, way=4, query=2, tasks=2, shards=2, warmup=0.2, check_every=4)


def main(folder: Path) -> None:
    with Group() as group:
        ticks: list[int] = []

        def tick(done: int) -> None:
            ticks.append(done)
            if done == 20 and group.place.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)

        ranks = Ranks(partial(crew, "anil"), group)
        keep = folder / "checkpoint" if group.leads else None
        found = trained_on(ranks.learners[1], SETTINGS, team=ranks, keep=keep, tick=tick)
        name = f"rank{group.place.rank}-from{ticks[0]}-after{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        save_file(found, folder / f"{name}.safetensors")
