"""The search of a run folder; or one that machines share: the same command joins it, wherever it is given."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager

from edgemeta import config as configs
from edgemeta.files import write_text
from edgemeta.latency import machine
from edgemeta.latency import profile as profiles
from edgemeta.report import course
from edgemeta.search import searcher
from edgemeta.search.claims import Claims
from edgemeta.search.jobs import fingerprint
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem
from edgemeta.search.run import Search
from edgemeta.search.storage import Database, address
from edgemeta.space.presets import landmarks
from edgemeta.space.space import Space
from edgemeta.stages.assemble import HOST, data_of, host_profile
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Profile, Trial

OWN = ("run", "workers", "progress", "storage", "lookahead", "root", "cache", "seconds", "trial_seconds")
BROUGHT = 24  # networks of a ranking whose weights are brought here, beside those trained longest


@contextmanager
def joined(config: configs.Search) -> Iterator[Claims | None]:
    """This process's part in the search of a storage; None where the run folder keeps it."""
    if not config.storage:
        yield None
        return
    with closing(Database(address(config.storage))) as database, Claims(database) as claims:
        yield claims


def profile(config: configs.Search, folder: RunFolder, space: Space, claims: Claims) -> Profile:
    """The profile that all machines of a search have in common; `host` is the machine that began it."""
    name = f"profile {_identity(config)}"
    noted = claims.noted(name)
    if noted is None:
        host_profile(folder, space, seed=config.seed, progress=config.progress)
        noted = claims.note_once(name, folder.profile(space.name).read_text())
    found = profiles.load(write_text(folder.shared_profile(space.name), noted))
    if found.cpu != machine.cpu():
        warnings.warn(
            f"{HOST!r} is the machine that began this search, {found.cpu}, and not this one; nothing is measured here",
            stacklevel=2,
        )
    return found


def run(
    config: configs.Search, folder: RunFolder, executor: Executor, claims: Claims | None, problem: Problem
) -> tuple[Search, list[Trial]]:
    """The search under the caps of a problem, and its ranking; what it needs of a storage is in the folder then."""
    proposing = searcher(config.searcher, problem, seed=config.seed, trials=config.trials)
    how = (executor, config.workers, config.progress, config.trial_seconds, claims, lookahead(config, claims))
    with closing(Ledger(address(config.storage) if claims else folder.ledger, problem.space, problem.task)) as ledger:
        found = Search(problem, proposing, config.searcher, ledger, *how)
        ranking = found.run(trials=config.trials, seconds=config.seconds, starts=landmarks(problem.space))
        volumes = course.volumes(found.trained(), problem.cap)
        ledger.mark("hypervolume", {name: own[-1] for name, own in volumes.items()})
        if claims:
            bring(problem, ranking, claims)
            ledger.copied_to(folder.ledger)
    return found, ranking


def lookahead(config: configs.Search, claims: Claims | None) -> int:
    """Proposals under way at once: what is proposed depends on it, so the first process decides for all."""
    own = max(config.lookahead, config.workers)
    return int(claims.note_once(f"lookahead {_identity(config)}", str(own))) if claims else own


def _identity(config: configs.Search) -> str:
    """Of a search: what the same command has in common on all machines, and the data."""
    same = {name: value for name, value in configs.as_json(config, configs.Search).items() if name not in OWN}
    told = json.dumps([same, fingerprint(data_of(config))], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def bring(problem: Problem, ranking: Sequence[Trial], claims: Claims) -> None:
    """The weights of networks that may ship, from whichever machine trained them."""
    longest = ranking[0].fidelity if ranking else 0
    for place, trial in enumerate(ranking):
        if place < BROUGHT or trial.fidelity == longest:
            claims.bring(problem.weights_of(trial.arch, trial.fidelity))
