"""A search on NNI's training services: trials on this machine, or on others over ssh."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemeta import config as configs
from edgemeta.errors import BadConfig, EdgemetaError
from edgemeta.integrations.nni import task
from edgemeta.integrations.nni.spaces import search_space
from edgemeta.search.ledger import Ledger
from edgemeta.search.problem import Problem, rank
from edgemeta.stages import assemble
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Arch, Profile, Trial

if TYPE_CHECKING:
    from edgemeta.integrations.nni.processes import Leaving

STOP_S = 5.0  # for an experiment to stop by itself, before its processes are killed ...
STOP_FAR_S = 20.0  # ... which does not reach those on other machines
POLL_S = 0.5
OVER = ("DONE", "STOPPED")
LOCAL, REMOTE = "local", "remote"


@dataclass(frozen=True)
class Machine:
    """One that ssh reaches, with edgemeta and NNI 3.0 installed for its Python."""

    host: str
    user: str
    port: int = 22
    key: Path | str = "~/.ssh/id_ed25519"  # private key; a passphrase is not asked for
    python: Path | str | None = None  # folder of its Python, such as /home/pi/venv/bin


@dataclass(frozen=True)
class Service:
    """Where trials run, and where NNI's manager listens. It has no password: whom it answers is all that guards it."""

    concurrency: int = 2  # trials at a time, on all machines together
    port: int = 0  # of the manager and its web page; 0: any that is free
    machines: tuple[Machine, ...] = ()  # none: trials run here, and the manager answers nobody but this machine
    address: str = ""  # of this machine, as those machines reach it

    def __post_init__(self) -> None:
        if self.concurrency < 1 or not 0 <= self.port < 2**16 - 1:
            raise BadConfig(f"concurrency {self.concurrency}, port {self.port}; give 1 or more, and a port below 65535")
        if self.machines and not self.address:
            raise BadConfig("machines need Service(address=...): this machine, as they reach it")


def search(service: Service | None = None, /, **settings: Any) -> list[Trial]:
    """`edgemeta search` with NNI running the trials: networks under the caps, best first.

    Settings are those of `edgemeta search`; of `rungs` the first is what each trial trains for. Trials go to the ledger
    of the run folder, so `edgemeta search` there goes on from them: longer training, and a checked bundle. Raises
    EdgemetaError where NNI is not installed or its experiment breaks off.
    """
    config = configs.make(configs.Search, settings)
    assemble.check(config)
    _require_nni()
    service, folder = service or Service(), RunFolder(config.run)
    with folder.locked():
        space = assemble.space_of(config)
        assemble.require_data(assemble.data_of(config), config.way, config.shot)
        profile = assemble.profile_of(config, folder, space)
        problem = assemble.problem_of(config, folder, space, profile)
        return run(problem, profile, folder, service, searcher=config.searcher, trials=config.trials)


def run(
    problem: Problem, profile: Profile, folder: RunFolder, service: Service, *, searcher: str, trials: int
) -> list[Trial]:
    """One experiment; its trials, and those of the past that fit, as `problem.rank` orders them."""
    from edgemeta.integrations.nni.tuner import trial_of  # imports NNI

    code = (folder.root / "nni" / "code").resolve()
    task.write(problem, profile, code, far=bool(service.machines))
    asked = {"folder": str(code), "ledger": str(folder.ledger.resolve()), "searcher": searcher, "trials": trials}
    with closing(Ledger(folder.ledger, problem.space, problem.task)) as ledger:
        for metric in _finished(experiment_config(problem, service, code, asked), service):
            ledger.record(trial_of(Arch(problem.space.name, tuple(metric["picks"])), metric, problem, searcher))
        fitting = [trial for trial in ledger.trials() if problem.bound(trial.arch).fits(problem.cap)]
    return rank(fitting, problem.space)


def experiment_config(problem: Problem, service: Service, code: Path, asked: dict[str, Any]) -> Any:
    """NNI's `ExperimentConfig`; `asked` are the arguments of `tuner.of_task`, `code` the folder of the task."""
    from nni.experiment import ExperimentConfig
    from nni.experiment.config import CustomAlgorithmConfig

    config = ExperimentConfig(REMOTE if service.machines else LOCAL)
    python = "python3" if service.machines else sys.executable
    config.trial_command = f"{python} -m edgemeta.integrations.nni.trial"
    config.trial_code_directory = str(code)
    config.trial_concurrency, config.max_trial_number = service.concurrency, asked["trials"]
    config.experiment_working_directory = str(code.parent)
    config.search_space = search_space(problem.space)
    tuner = {"class_name": "edgemeta.integrations.nni.tuner.of_task", "code_directory": str(code), "class_args": asked}
    config.tuner = CustomAlgorithmConfig(**tuner)
    config.log_level = "warning"
    if service.machines:
        config.training_service.machine_list = [_machine(machine) for machine in service.machines]
        config.nni_manager_ip = service.address
    return config


def _machine(machine: Machine) -> Any:
    from nni.experiment.config import RemoteMachineConfig

    key = Path(machine.key).expanduser()
    if not key.is_file():
        raise BadConfig(f"no key {key} for {machine.user}@{machine.host}; give Machine(key=...)")
    python = str(machine.python) if machine.python else None
    return RemoteMachineConfig(
        host=machine.host, user=machine.user, port=machine.port, ssh_key_file=str(key), python_path=python
    )


def _finished(config: Any, service: Service) -> list[dict[str, Any]]:
    """What each trial of an experiment reported, once it is over; nothing of it is left running then."""
    from nni.experiment import Experiment

    from edgemeta.integrations.nni.processes import family

    experiment = Experiment(config)
    logs = Path(config.experiment_working_directory) / experiment.id / "log"
    with family(_addresses(service)) as leaving, _running(experiment, service, logs):
        _wait(experiment, leaving, logs)
        return _reported(experiment)


@contextmanager
def _running(experiment: Any, service: Service, logs: Path) -> Iterator[None]:
    """An experiment under way; however this is left, it is asked to stop first."""
    try:
        try:
            experiment.start(service.port or _free_port())
        except Exception as error:
            raise EdgemetaError(f"NNI did not start: {error}; see {logs}, or give another Service(port=...)") from error
        yield
    finally:
        stopping = threading.Thread(target=experiment.stop, daemon=True)
        stopping.start()
        stopping.join(STOP_FAR_S if service.machines else STOP_S)


def _wait(experiment: Any, leaving: Leaving, logs: Path) -> None:
    while (status := _status(experiment)) not in OVER:
        if status == "ERROR":
            raise EdgemetaError(f"NNI's experiment broke off; read nnimanager.log and dispatcher.log in {logs}")
        leaving.wait(POLL_S)


def _status(experiment: Any) -> str:
    """ERROR as well where the manager has gone, which it does where a machine cannot be reached."""
    try:
        return experiment.get_status()
    except OSError:  # which the errors of requests are
        return "ERROR"


def _reported(experiment: Any) -> list[dict[str, Any]]:
    """Every final metric. It names its architecture: the parameters that NNI exports beside it may be another's."""
    every = [metric for of_trial in experiment.get_job_metrics().values() for metric in of_trial]
    return [metric.data for metric in every if metric.type == "FINAL"]


def _addresses(service: Service) -> tuple[str, ...]:
    """Of the machines, as a connection from them shows them."""
    found: set[str] = set()
    for machine in service.machines:
        try:
            found.update(str(info[4][0]) for info in socket.getaddrinfo(machine.host, machine.port))
        except OSError as error:
            raise EdgemetaError(
                f"no machine is known as {machine.host}: {error.strerror}; mend Machine(host=...)"
            ) from error
    return tuple(sorted(found | {service.address} if found else found))


def _free_port() -> int:
    """A port that is free, and the next one too, which NNI looks at where trials run on other machines."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _require_nni() -> None:
    if find_spec("nni") is None:
        raise EdgemetaError("NNI is not installed for this Python; pip install 'edgemeta[nni]'")
