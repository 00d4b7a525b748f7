"""Settings of every command: defaults, then a TOML file, then flags, into one frozen dataclass per command."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from edgemeta import ranges
from edgemeta.errors import BadConfig, flag, nearest
from edgemeta.types import Cost, Shape

T = TypeVar("T")
LONGEST_S = 3600.0  # a machine an hour later is another machine
HOST = "host"  # what `--device` calls this machine
SOURCES = "edgemeta.data.sources:SOURCES"
SPACES, LEARNERS = "edgemeta.space.presets:SPACES", "edgemeta.learners:LEARNERS"
_FROZEN: ConfigDict = {"extra": "forbid", "arbitrary_types_allowed": True}


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    registry: str = "",
    positional: bool = False,
    alone: Any = None,
    metavar: str = "",
) -> Any:
    """A dataclass field with what `--help` shows; `registry` is where its choices stand, as "module:NAME".

    A `positional` one is given without a flag; `alone` is what the flag means without a value.
    """
    shown = {"help": help, "unit": unit, "registry": registry, "positional": positional, "alone": alone}
    shown |= {"metavar": metavar}
    return field(default=default, metadata=shown)


def default_cache() -> Path:
    return Path("~/.cache/edgemeta").expanduser()


@dataclass(frozen=True, config=_FROZEN)
class Common:
    """What every command with a run folder takes."""

    run: Path = setting(Path("runs/edge"), "folder that keeps everything a run made, and where it goes on")
    seed: int = setting(0, "seed of every random choice")
    workers: int = setting(2, "worker processes, one thread each")
    progress: bool = setting(True, "progress: bars on a terminal, a line a minute in a log")


@dataclass(frozen=True, config=_FROZEN)
class Budget(Common):
    """What a network is for, and what it may cost there."""

    device: str = setting(HOST, "device: 'host' (this machine, timed on first use), a profile's name or its file")
    latency_ms: float = setting(math.inf, "cap on the latency of one inference", unit="ms")
    ram_kib: float = setting(math.inf, "cap on the peak of live activations", unit="KiB")
    flash_kib: float = setting(math.inf, "cap on weights and graphs on disk", unit="KiB")
    int8: bool = setting(
        False,
        "make the network in int8 as well, and ship that one where it keeps the accuracy and either is clearly faster, "
        "or is under the flash cap and float32 is not",
    )


@dataclass(frozen=True, config=_FROZEN)
class Pick(Budget):
    """A checked bundle of a network that comes trained, the best under the caps, taught the classes of a folder."""

    images: Path = setting(Path("images"), "folder with one folder of images per class")
    zoo: Path | None = setting(None, "file of other trained networks than those that come with edgemeta")

    @property
    def cap(self) -> Cost:
        return Cost(self.latency_ms, self.ram_kib, self.flash_kib)


@dataclass(frozen=True, config=_FROZEN)
class Profile(Common):
    """Time a device, this machine or another one, and write its profile."""

    space: str = setting("edge", "search space whose operators are timed", registry=SPACES)
    in_shape: Shape = setting((1, 28, 28), "one input example: channels,height,width", unit="pixels")
    threads: int = setting(1, "ONNX Runtime threads")
    precision: Literal["fp32", "int8"] = setting("fp32", "numbers the networks are timed in")
    runtime: Literal["onnxruntime", "onnxruntime-web"] = setting("onnxruntime", "what runs them; web: wasm under Node")
    nets: int = setting(600, "random networks timed, beside those that cover every operator")
    timings: int | None = setting(None, "time this many networks alone, well chosen: for a device timed by hand")
    seconds: float = setting(40.0, "stop timing after this time", unit="s")
    ssh: str | None = setting(None, "time the device that `ssh NAME` reaches, with its own Python")
    remote_python: str = setting("python3", "Python of that device; it needs numpy and onnxruntime")
    devices: Path | None = setting(None, "time all devices of this inventory at once, over ssh (docs/farm.md)")
    only: tuple[str, ...] = setting((), "for --devices: names of those to time")
    again: bool = setting(False, "for --devices: time also what was timed before with the same settings")
    kit: Path | None = setting(None, "write what is to be timed to this folder, to carry by hand, and stop")
    from_: Path | None = setting(None, "timings.json that came back from the device; --kit names the folder it timed")
    out: Path | None = setting(None, "where the profile goes (default: into RUN)")


@dataclass(frozen=True, config=_FROZEN)
class Import:
    """Make a device profile of a public latency table, or of timings taken by hand: `edgemeta profile import`."""

    file: Path | None = setting(None, "the table, .npz, or for `timings` CSV or JSON", positional=True)
    format: str = setting("", "layout of the file", registry="edgemeta.stages.imports:FORMATS")
    device: str = setting("", "device of the table (left out: lists them), or for `timings` a name for yours")
    space: str = setting("edge", "for `timings`: space of the architectures", registry="edgemeta.stages.imports:SPACES")
    in_shape: Shape = setting((1, 28, 28), "for `timings`: one input example: channels,height,width", unit="pixels")
    threads: int = setting(1, "for `timings`: threads that were used")
    precision: Literal["fp32", "int8"] = setting("fp32", "for `timings`: numbers that were used")
    out: Path | None = setting(None, "where the profile goes (default: DEVICE.json)")


@dataclass(frozen=True, config=_FROZEN)
class Task(Common):
    """What is learned, from what."""

    space: str = setting("edge", "search space", registry=SPACES)
    in_shape: Shape = setting((1, 28, 28), "one input example: channels,height,width", unit="pixels")
    data: str = setting("glyphs", "data source to meta-train on", registry=SOURCES)
    root: Path | None = setting(None, "folder or file of the data source, where it needs one")
    ink: Literal["as-is", "bright"] = setting("as-is", "for data `folder`: bright turns dark ink on light ground over")
    split_seed: int = setting(0, "seed that splits classes where the data does not: what is held out stays held out")
    cache: Path = setting(default_cache(), "folder for rendered data")
    learner: str = setting("protonet", "few-shot learner", registry=LEARNERS)
    way: int = setting(5, "classes per validation episode")
    shot: int = setting(1, "labelled examples per class in a validation episode")


@dataclass(frozen=True, config=_FROZEN)
class Search(Task, Budget):
    """Find architectures under the caps; ends with a checked bundle of the best one as trained so far."""

    energy_mj: float = setting(
        math.inf, "cap on the energy of one inference, where the device's is measured", unit="mJ"
    )
    devices: Path | None = setting(
        None, "inventory in which --device stands: candidates are timed there, over ssh (docs/farm.md)"
    )
    searcher: str = setting("evolution", "how architectures are proposed", registry="edgemeta.search:KNOWN")
    trials: int = setting(24, "networks to train under these caps; those already in the run folder count")
    rungs: tuple[int, ...] = setting((100, 300, 900), "training episodes of the rounds of successive halving")
    eval_episodes: int = setting(300, "validation episodes per score")
    seconds: float = setting(math.inf, "propose new networks while this time leaves room for halving", unit="s")
    trial_seconds: float = setting(math.inf, "a network whose training takes longer has failed", unit="s")
    storage: str = setting(
        "", "postgresql://USER@HOST/DATABASE that machines share: the same command on another one joins the search"
    )
    lookahead: int = setting(4, "networks under way before the oldest is told; as many machines are of use at once")
    front: int = setting(0, "search under this many tighter caps as well, and write a bundle for each")
    front_over: Literal["latency_ms", "ram_kib", "flash_kib"] = setting("latency_ms", "for --front: what is capped")

    @property
    def cap(self) -> Cost:
        return Cost(self.latency_ms, self.ram_kib, self.flash_kib, self.energy_mj)


@dataclass(frozen=True, config=_FROZEN)
class Train(Search):
    """Meta-train the winner of the search longer, with one or more learners, and test it on held-out classes."""

    learners: tuple[str, ...] = setting(("protonet", "anil"), "learners to meta-train", registry=LEARNERS)
    episodes: int = setting(2000, "training episodes per learner")
    test_episodes: int = setting(600, "test episodes per figure")
    mix: tuple[str, ...] = setting(
        (), "other data to train on as well, NAME or NAME=ROOT; each task comes from one of all", registry=SOURCES
    )
    accelerator: Literal["auto", "cpu", "cuda"] = setting("auto", "where to train; auto: on CUDA where there is one")
    precision: Literal["fp32", "bf16"] = setting("fp32", "numbers the network is trained in; bf16: for GPUs")
    shards: int = setting(
        0, "parts of an update that as many processes can share, a task or more in each; 0: what suits the learner"
    )
    patience: int = setting(0, "stop after so many validations without a better one, and keep the best; 0: never")
    arch: str = setting(
        "", "a well-known net instead of the search's winner", registry="edgemeta.space.presets:LANDMARKS"
    )


@dataclass(frozen=True, config=_FROZEN)
class Export(Common):
    """Write checked and measured bundles of everything `train` (or `search`) has trained."""

    out: Path | None = setting(None, "folder of the bundle (default: RUN/bundle)")
    int8: bool = setting(False, "as for `search`; what was searched for with it has it")
    c: Path | None = setting(None, "write the bundle, also one of `pick`, as C99 for microcontrollers to this folder")
    ort: Path | None = setting(None, "write the bundle in ORT format as well, for phones, to this folder")
    node: Path | None = setting(None, "write the bundle with a runtime for Node as well, to this folder")
    c_rows: int = setting(25, "for --c: examples that it can learn from")
    c_way: int = setting(5, "for --c: classes that it can tell apart")
    c_core: Literal["m3", "m4", "m7"] = setting("m4", "for --c: Cortex-M on which it is measured, emulated")


@dataclass(frozen=True, config=_FROZEN)
class Report(Common):
    """Write RUN/report.html again from what the run folder holds."""


@dataclass(frozen=True, config=_FROZEN)
class Devices:
    """List the device profiles that `--device` can name."""


@dataclass(frozen=True, config=_FROZEN)
class Bench:
    """Time a bundle on this machine and compare with what its manifest says."""

    bundle: Path = setting(Path("runs/edge/bundle"), "bundle folder")
    threads: int = setting(1, "ONNX Runtime threads")


@dataclass(frozen=True, config=_FROZEN)
class Enroll(Bench):
    """Teach a bundle new classes from a folder with one folder of images per class; keeps them in a state file."""

    images: Path = setting(Path("images"), "folder with one folder of images per class")
    state: Path = setting(Path("state.npz"), "file that keeps what the device has learned; goes on where it exists")


@dataclass(frozen=True, config=_FROZEN)
class Predict(Bench):
    """Classify images with a bundle and the classes it was taught."""

    images: Path = setting(Path("images"), "an image or a folder of images")
    state: Path = setting(Path("state.npz"), "file that keeps what the device has learned")
    unknown: float | None = setting(
        None,
        "call 'unknown' what is less like any class than all but this share of the enrolled examples: the larger, the "
        "more is unknown (without a number: 0.05); the probability stays that of the class it is most like",
        alone=0.05,
        metavar="SHARE",
    )


@dataclass(frozen=True, config=_FROZEN)
class Serve:
    """A page in the browser of this machine that draws, photographs, teaches and asks a bundle; nothing leaves it."""

    bundle: Path = setting(Path("runs/edge/bundle"), "bundle folder", positional=True)
    port: int = setting(8000, "port on localhost")
    out: Path | None = setting(None, "write the page to this folder instead, for any static web server")


@dataclass(frozen=True, config=_FROZEN)
class Demo(Train):
    """The whole road on this machine: profile, search, train, export, adapt on the device side, report."""

    run: Path = setting(Path("runs/demo"), "folder that keeps everything a run made, and where it goes on")
    latency_ms: float = setting(
        math.inf, "cap on the latency of one inference (default: 0.45 of what Conv4-64 takes here)", unit="ms"
    )
    ram_kib: float = setting(128.0, "cap on the peak of live activations", unit="KiB")
    flash_kib: float = setting(512.0, "cap on weights and graphs on disk", unit="KiB")
    trials: int = setting(20, "networks to train under these caps; those already in the run folder count")
    quick: bool = setting(
        False, "a tiny space, little training and no caps but yours: shows the road in minutes, accuracy is poor"
    )


def names(config: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(config))


def as_dict(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names(type(config))}


def as_json(config: Any, kind: type) -> dict[str, Any]:
    """The settings that a base class of a config has, as JSON types; those at infinity are left out."""
    values = {name: getattr(config, name) for name in names(kind)}
    plain = {name: _plain(value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value not in (None, math.inf)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return without_secrets(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """The text without the passwords of addresses in it."""
    return re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", re.sub(r"([?&]password=)[^&\s]*", r"\1***", text))


def make(config: type[T], settings: Mapping[str, Any]) -> T:
    """A validated config; errors name the setting, what it was and what it should be."""
    known = [f.name for f in fields(config)]  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise BadConfig(f"unknown setting {name!r}; {nearest(name, known)}")
    try:
        made = config(**settings)
    except ValidationError as error:
        raise BadConfig(ranges.told(error.errors()[0], settings)) from error
    ranges.in_range(made)
    if isinstance(made, Profile):
        _one_way(made)
    if isinstance(made, Import) and made.file is None:
        raise BadConfig("no file to import: name it, as in `edgemeta profile import --format nb201 table.npz`")
    return made


def require_there(config: Any) -> None:
    """Refuse a bundle, images or a state that are not there, in which the command line would look much later."""
    bundle, images, state = (getattr(config, name, None) for name in ("bundle", "images", "state"))
    if bundle and not (bundle / "manifest.json").is_file():
        raise BadConfig(
            f"{bundle} is no bundle: it holds no manifest.json; name one with --bundle, or make one: "
            "`edgemeta pick` or `edgemeta search`"
        )
    if images and not images.exists():
        kind = "images" if isinstance(config, Predict) else "images, with a directory for each class"
        raise BadConfig(f"{images} does not exist; name a folder of {kind}, with --images")
    if isinstance(config, Predict) and state and not state.exists():
        raise BadConfig(
            f"{state} does not exist: nothing is taught yet; `edgemeta enroll` does, or name one with --state"
        )


def _one_way(config: Profile) -> None:
    """A device is timed here, over ssh, or by hand."""
    if config.from_ and not config.kit:
        raise BadConfig("--from needs --kit: the folder whose networks were timed")
    if config.only and not config.devices:
        raise BadConfig("--only needs --devices: the inventory in which these stand")
    for other in ("ssh", "kit", "from_", "out"):
        if config.devices and getattr(config, other):
            raise BadConfig(f"--devices times each device of the inventory over ssh; leave {flag(other)} out")
    if config.ssh and config.kit:
        raise BadConfig("--ssh carries the kit there and back by itself; leave --kit out, or --ssh to carry it by hand")
    if (config.ssh or config.devices) and config.runtime != "onnxruntime":
        raise BadConfig(f"over ssh only onnxruntime is timed, not {config.runtime}; carry the kit by hand with --kit")
    if config.seconds > LONGEST_S:
        raise BadConfig(
            f"setting seconds = {config.seconds!r}: should be at most {LONGEST_S:g}; speeds change meanwhile"
        )


def read_toml(path: Path, command: str, commands: Collection[str]) -> dict[str, Any]:
    """Settings of a TOML file: top-level keys, overridden by those of the command's own table."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise BadConfig(f"cannot read config {path}: {error.strerror}; give an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"config {path} is not valid TOML: {error}; correct it") from error
    for table in (name for name, value in content.items() if isinstance(value, dict) and name not in commands):
        raise BadConfig(f"config {path}: no command has the name of table [{table}]; {nearest(table, commands)}")
    own = content.get(command, {})
    if not isinstance(own, dict):
        raise BadConfig(f"config {path}: {command} = {own!r} should be a table, [{command}]; put settings below it")
    return {name: value for name, value in content.items() if not isinstance(value, dict)} | own
