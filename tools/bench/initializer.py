"""Start weights chosen by the task, and a student under a teacher: what each gains at equal training time.

    python tools/bench/initializer.py --json initializer.json

Two domains of rendered glyphs: as they are, and faint and blurred on an uneven, noisy ground; accuracy on scripts held
out, and on real digits, which no network has seen. One small network (20 thousand parameters), ProtoNet, one core.

- `shared`: one start for both domains. `initializer`: a mixture of two bases, chosen by the embedding of the support;
  `initializer, statistics`: only running statistics are mixed.
- Told which domain it is, which no device is: `shared, own statistics` are the weights of `shared` with the running
  statistics of each domain, `own network` is one network for each domain, trained for half of the time.
- `teacher` is a network five times as large; `student` and `student, distilled` are trained on the glyphs as they are,
  for the same time, which for the second includes the looks that the teacher takes: one at each image, so a longer
  training pays less for them. `same episodes` takes as much longer as its pace says.

Equal time: each gets as many episodes as fit it, at its own pace, probed in turns with the others' on one core. A run
takes two minutes on an idle one; differences of a point or two are noise at one seed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from _common import emit, parser

from edgemeta.config import default_cache
from edgemeta.contracts import Learner, Params
from edgemeta.data.episode import Pool, pool
from edgemeta.data.sources import load
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import evaluate, features
from edgemeta.learners.settings import Training
from edgemeta.learners.train import train
from edgemeta.nets.build import build
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.tasks.distil import Imitation, imitating
from edgemeta.tasks.initializer import initializer, prepared

SMALL = (8, 16, 32, 48)  # filters of the four blocks
SETTINGS = Training()
TASKS = ((5, 1), (20, 1))
PROBE, PROBES = 20, 3  # episodes of a probe, and probes
Trained = Callable[[str], tuple[Learner, Params]]  # domain -> what is used on it


def main() -> int:
    options = parser(__doc__.split("\n")[0], quick={"seconds": 0.5, "episodes": 5})
    options.add_argument(
        "--seconds", type=float, default=8.0, help="processor time of a training; a teacher's is twice"
    )
    options.add_argument("--episodes", type=int, default=150, help="test episodes per figure")
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--split", default="test", choices=("val", "test"))
    options.add_argument("--cache", type=Path, default=default_cache(), help="folder for rendered data")
    args = options.parse_args()
    torch.set_num_threads(1)
    pace_s, rows = _paces(args.cache), []
    for seed in args.seeds:
        bench = Bench(seed, args, pace_s)
        for row in [*_domains(bench), *_students(bench)]:
            print(row, flush=True)
            rows.append(row)
    settings = {name: str(value) for name, value in vars(args).items() if not isinstance(value, Path)}
    settings |= {f"{name}_ms_per_episode": f"{1e3 * value:.2f}" for name, value in pace_s.items()}
    return emit("initializer", _values(rows), rows, args.json, settings, goals=args.goals, quick=args.quick)


def _values(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Gains in points, mean over seeds."""

    def of(start: str, figure: str) -> float:
        return mean(row[figure] for row in rows if row["start"] == start)

    figures = [f"{domain}_{way}w{shot}s" for domain in ("glyphs", "faint") for way, shot in TASKS]
    values = {f"gain_{figure}": of("initializer", figure) - of("shared", figure) for figure in figures}
    told = [of("initializer", figure) - of("shared, own statistics", figure) for figure in figures]
    values["gain_over_own_statistics"] = mean(told)
    for way, shot in TASKS:
        figure = f"glyphs_{way}w{shot}s"
        for kind in ("", "_same_episodes"):
            title = "student, distilled" + kind.replace("_", ", ", 1).replace("_", " ")
            values[f"gain_distilled{kind}_{way}w{shot}s"] = of(title, figure) - of("student", figure)
    return values


@cache
def _pools(folder: Path, split: str) -> dict[str, Pool]:
    plain = pool(load("glyphs", cache=folder), split)
    return {"glyphs": plain, "faint": _faint(plain, rng=torch.Generator().manual_seed(0))}


def _faint(plain: Pool, *, rng: torch.Generator) -> Pool:
    """Dark strokes of 2/5 of the contrast, at half the resolution, on a ground that is uneven and noisy."""
    ink = F.interpolate(F.avg_pool2d(plain.x.float(), 2), plain.x.shape[2:], mode="bilinear")
    n, _, height, width = ink.shape
    down, right = torch.randn(2, n, 1, 1, 1, generator=rng) * 40
    slope = down * torch.linspace(-1, 1, height)[:, None] + right * torch.linspace(-1, 1, width)
    noise = torch.randn(ink.shape, generator=rng) * 20
    return replace(plain, x=(182 - 0.4 * ink + slope + noise).clamp(0, 255).to(torch.uint8))


class Bench(NamedTuple):
    """One seed's trainings and tests."""

    seed: int
    args: argparse.Namespace
    pace_s: dict[str, float]

    def episodes(self, learner: Learner, share: float = 1.0) -> int:
        return max(1, int(share * self.args.seconds / self.pace_s[learner.name]))

    def fresh(self, learner: Learner) -> Params:
        return learner.init(rng=torch.Generator().manual_seed(self.seed))

    def train(self, learner: Learner, slow: Params, pools: Sequence[Pool], episodes: int, **settings: Any) -> Params:
        training = replace(SETTINGS, episodes=episodes, **settings)
        return train(learner, slow, pools, training, rng=np.random.default_rng(self.seed))

    def row(self, start: str, episodes: int, used: Trained) -> dict[str, Any]:
        row: dict[str, Any] = {"start": start, "seed": self.seed, "train_episodes": episodes}
        judges = _pools(self.args.cache, self.args.split)
        judges = judges | {"digits": pool(load("digits", cache=self.args.cache), "test")}
        for domain, judge in judges.items():
            learner, slow = used(domain)
            z = features(learner, slow, judge)
            for way, shot in (task for task in TASKS if task[0] <= len(judge.by_class)):
                task = {"way": way, "shot": shot, "query": 5, "episodes": self.args.episodes}
                score = evaluate(learner, slow, judge, z, rng=np.random.default_rng([1, way, shot]), **task)
                figure = f"{domain}_{way}w{shot}s"
                row |= {figure: 100 * score.mean, f"{figure}_ci95": 100 * score.ci95}
        return row


def _learners() -> dict[str, Learner]:
    """Everything that is trained here, by its role; a learner's name is its role."""
    space = edge()
    small = space.arch([{"width": width, "kind": "conv", "down": "pool"} for width in SMALL])
    student, teacher = (LEARNERS["protonet"](build(space.ops(arch))) for arch in (small, LANDMARKS["tapered"](space)))
    made = {"student": student, "teacher": teacher, "initializer": initializer(student)}
    made["initializer, statistics"] = initializer(student, scope="statistics")
    return {role: learner._replace(name=role) for role, learner in made.items()}


def _distilled(learners: dict[str, Learner], teacher_slow: Params) -> Learner:
    learner = imitating(learners["student"], learners["teacher"], teacher_slow, Imitation())
    return learner._replace(name="student, distilled")


def _paces(folder: Path) -> dict[str, float]:
    """Processor seconds of an episode, taken in turns, for a machine is faster at some times than at others."""
    learners, pools = _learners(), list(_pools(folder, "train").values())
    rng = torch.Generator().manual_seed(0)
    learners["student, distilled"] = _distilled(learners, learners["teacher"].init(rng=rng))
    starts = {role: learner.init(rng=rng) for role, learner in learners.items()}
    taken: dict[str, list[float]] = {role: [] for role in learners}
    for turn in range(PROBES + 1):
        for role, learner in learners.items():
            seen: list[float] = []
            note = partial(_note, seen)
            train(learner, starts[role], pools, SETTINGS.lasting(PROBE + 1), rng=np.random.default_rng(turn), tick=note)
            taken[role].append((seen[-1] - seen[0]) / PROBE)
    return {role: min(found[1:]) for role, found in taken.items()}  # the first warms up


def _note(seen: list[float], episodes: int) -> None:
    seen.append(time.process_time())


def _domains(bench: Bench) -> list[dict[str, Any]]:
    """Ways to start on two domains."""
    learners, pools = _learners(), _pools(bench.args.cache, "train")
    learner, every = learners["student"], list(pools.values())
    slow, episodes = bench.fresh(learner), bench.episodes(learner)
    shared = bench.train(learner, slow, every, episodes)
    rows = [bench.row("shared", episodes, lambda name: (learner, shared))]
    own = {name: bench.train(learner, shared, [one], 60, lr=1e-12) for name, one in pools.items()}  # weights stay
    rows.append(bench.row("shared, own statistics", episodes, lambda name: (learner, own.get(name, shared))))
    apart = {name: bench.train(learner, slow, [one], episodes // 2) for name, one in pools.items()}
    rows.append(bench.row("own network", episodes, lambda name: (learner, apart.get(name, apart["glyphs"]))))
    return rows + [_mixed(bench, learners[role], every) for role in ("initializer", "initializer, statistics")]


def _mixed(bench: Bench, made: Learner, pools: Sequence[Pool]) -> dict[str, Any]:
    began = time.process_time()
    slow = prepared(bench.fresh(made), pools, SETTINGS, rng=np.random.default_rng(bench.seed))
    episodes = bench.episodes(made, 1 - (time.process_time() - began) / bench.args.seconds)
    found = bench.train(made, slow, pools, episodes)
    return bench.row(made.name, episodes, lambda name: (made, found))


def _students(bench: Bench) -> list[dict[str, Any]]:
    """A teacher, and the same student alone and under it, on the first domain."""
    learners, glyphs = _learners(), [_pools(bench.args.cache, "train")["glyphs"]]
    teacher, student = learners["teacher"], learners["student"]
    episodes = bench.episodes(teacher, 2.0)
    large = bench.train(teacher, bench.fresh(teacher), glyphs, episodes)
    rows = [bench.row("teacher", episodes, lambda name: (teacher, large))]
    distilled = _distilled(learners, large)
    same_time, same_episodes = bench.episodes(distilled), bench.episodes(student)
    for learner, title, episodes in (
        (student, "student", same_episodes),
        (distilled, "student, distilled", same_time),
        (distilled, "student, distilled, same episodes", same_episodes),
    ):
        found = bench.train(learner, bench.fresh(student), glyphs, episodes)
        rows.append(bench.row(title, episodes, lambda name, found=found: (student, found)))  # type: ignore[misc]
    return rows


if __name__ == "__main__":
    sys.exit(main())
