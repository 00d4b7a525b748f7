"""Everything a report page shows, as plain data: numbers, strings and the records of `edgemeta.types`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemeta.contracts import Latency
from edgemeta.errors import EdgemetaError, first_mistake
from edgemeta.files import write_json
from edgemeta.types import Arch, Cost, Op, Profile, Timing, Trial


@dataclass(frozen=True)
class Winner:
    """The architecture in the bundle."""

    arch: Arch
    learner: str
    ops: tuple[Op, ...]
    predicted: Latency
    measured: Timing | None = None  # the bundle's body, timed on the device
    ram_kib: float | None = None
    flash_kib: float | None = None
    energy_mj: float | None = None  # None: not measured


@dataclass(frozen=True)
class Check:
    """One whole network, predicted and measured on the same device."""

    name: str
    group: str  # "profile": timed for the profile, and used to fit it; "search": a bundle, timed after the search
    predicted: Latency  # with its 90 % interval
    measured_ms: float
    shares: Mapping[str, float] = field(default_factory=dict)  # kind of operator -> its share of the prediction, 0..1


@dataclass(frozen=True)
class Score:
    """Few-shot accuracy of one learner on one test set."""

    learner: str
    test_set: str
    way: int
    shot: int
    accuracy: float  # 0..1
    ci: float  # half width of the 95 % interval
    episodes: int
    transductive: bool = False  # True where predictions of a query saw the other queries


@dataclass(frozen=True)
class DataFacts:
    """A data set of the run and how its classes were divided."""

    name: str
    images: int
    classes: Mapping[str, int]  # split -> classes in it
    synthetic: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BundleFile:
    """A file of the bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Policy:
    """What the meta-learned searcher decides where, before anything is trained."""

    decisions: tuple[tuple[str, tuple[str, ...]], ...]  # name, options
    changes: Mapping[str, tuple[float, ...]]  # "budget", "device", "task" -> of each decision, 0..1
    budgets_ms: tuple[float, ...]  # rising
    probability: tuple[tuple[float, ...], ...]  # of each budget, the options of all decisions in turn


@dataclass(frozen=True)
class Story:
    """A whole run. Whatever is None or empty leaves its section of the page out."""

    device: str = ""
    budget: Cost = field(default_factory=Cost)
    winner: Winner | None = None
    trials: tuple[Trial, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()  # (label, predicted ms) of the winner's operators, in order
    checks: tuple[Check, ...] = ()
    scores: tuple[Score, ...] = ()
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()  # (stage of the run, seconds)
    data: tuple[DataFacts, ...] = ()
    profile: Mapping[str, str] = field(default_factory=dict)  # see `profile_facts`
    drift: tuple[tuple[float, float], ...] = ()  # (seconds, ms of the reference network) while it was measured
    doubts: tuple[str, ...] = ()  # what speaks against the profile's timings
    files: tuple[BundleFile, ...] = ()
    policy: Policy | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types only; infinities and NaN become the strings pydantic reads back as floats."""
        return _plain(self)

    @classmethod
    def from_dict(cls, value: Any) -> Story:
        """The inverse of `to_dict`."""
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            wrong = first_mistake(error, "the whole file")
            raise EdgemetaError(
                f"a run's story that cannot be read: {wrong}; run the command that wrote it again"
            ) from None


def save(path: Path | str, story: Story) -> Path:
    """Write a story where `load` finds it."""
    return write_json(path, story.to_dict())


def load(path: Path | str) -> Story:
    """The story of a run folder's file."""
    try:
        return Story.from_dict(json.loads(Path(path).read_text()))
    except OSError as error:
        raise EdgemetaError(f"cannot read {path}: {error.strerror}; name the folder of a run that finished") from None
    except ValueError:
        raise EdgemetaError(f"{path} is not JSON; run the command that wrote it again") from None


def profile_facts(profile: Profile) -> dict[str, str]:
    """What a latency must not be quoted without: device, CPU, governor, cores, threads, runtime, date."""
    versions = ", ".join(f"{name} {version}" for name, version in profile.versions.items())
    facts = {
        "Device": profile.device + (" (simulated)" if profile.synthetic else ""),
        "CPU": profile.cpu,
        "Frequency governor": profile.governor,
        "Cores allowed": cores(profile.affinity),
        "Threads": str(profile.threads),
        "Precision": f"{profile.precision}, batch {profile.batch}",
        "Runtime": profile.runtime,
        "Versions": versions,
        "Measured on": profile.measured_on,
        "Operators timed": str(len(profile.ops) or "none"),
        "Whole networks timed": str(len(profile.nets)),
        "Energy of the processor": energy_rate(profile),
    }
    return facts | ({"Source": profile.source} if profile.source else {})


def cores(numbers: Sequence[int]) -> str:
    """Core numbers in ranges, 0–3, 6; "unknown" where the system told none."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs) or "unknown"


def energy_rate(profile: Profile) -> str:
    """Energy per time of inference, as measured; 1 mJ in 1 ms is 1 W."""
    rate = profile.overhead.get("per_ms_mj")
    return "not measured" if rate is None else f"{rate:.3g} mJ per ms"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # a file name may hold bytes that are no Unicode
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(float(value), "nan")
    raise TypeError(f"a story holds plain data only, not {type(value).__name__}")
