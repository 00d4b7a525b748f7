"""Where the latency of a bundle comes from: this machine, a farm of identical devices, or the prediction."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from edgemeta.errors import BadBundle
from edgemeta.latency.farm import Farm
from edgemeta.latency.inventory import Device
from edgemeta.lowering import bundle, far

RETRIES = 2  # a busy moment must not cost a candidate its place


class Reading(NamedTuple):
    """What is known of a bundle's latency, and how."""

    measured: Mapping[str, Any] | None  # as `bundle.measure` has it; None: predicted only
    told: str
    failed: str = ""  # why the device cannot run the bundle


class Meter(Protocol):
    """A way to read bundles; `here`: on this machine."""

    here: bool

    @property
    def width(self) -> int:
        """How many candidates can be read at once."""

    def read(self, candidates: Sequence[Sequence[Path]], *, threads: int, cap_ms: float) -> list[list[Reading]]:
        """A reading of each bundle of each candidate, those of one candidate on one device.

        One that is over the cap is timed three times, and the median counts.
        """


@final
class Here:
    """This machine."""

    here, width = True, 1

    def read(self, candidates: Sequence[Sequence[Path]], *, threads: int, cap_ms: float) -> list[list[Reading]]:
        def once(folder: Path) -> Mapping[str, Any]:
            return bundle.measure(folder, threads=threads)

        return [[Reading(_settled(once, each, cap_ms), "measured here") for each in folders] for folders in candidates]


@final
class Nowhere:
    """A device that is not here: the predicted latency stands."""

    here, width = False, 1

    def read(self, candidates: Sequence[Sequence[Path]], *, threads: int, cap_ms: float) -> list[list[Reading]]:
        return [[Reading(None, "predicted only (the device is not this machine)") for _ in each] for each in candidates]


@final
class FarmMeter:
    """Identical devices behind ssh, which share the candidates; when none is left, the predicted latency stands."""

    here = False

    def __init__(self, kind: str, devices: Sequence[Device], *, progress: bool):
        self.kind, self.farm, self.progress = kind, Farm(devices), progress
        self.warned = False

    @property
    def width(self) -> int:
        return max(1, len(self.farm.left))

    def read(self, candidates: Sequence[Sequence[Path]], *, threads: int, cap_ms: float) -> list[list[Reading]]:
        def do(device: Device, folders: Sequence[Path], stop: threading.Event) -> list[Reading]:
            return [self._one(device, folder, threads, cap_ms, stop) for folder in folders]

        found: list[list[Reading]] = [[] for _ in candidates]
        with closing(self.farm.run(candidates, do)) as answers:
            for position, device, readings in answers:
                found[position] = readings if device else [self._predicted() for _ in candidates[position]]
        return found

    def _one(self, device: Device, folder: Path, threads: int, cap_ms: float, stop: threading.Event) -> Reading:
        def once(folder: Path) -> Mapping[str, Any]:
            return far.measure(folder, device.target, threads=threads, progress=self.progress, stop=stop)

        try:
            return Reading(_settled(once, folder, cap_ms), f"measured on {device.name}")
        except BadBundle as error:
            return Reading(None, f"predicted only ({error})", str(error))

    def _predicted(self) -> Reading:
        told = f"{self.kind} unreachable: {'; '.join(self.farm.lost.values())}"
        if not self.warned:
            warnings.warn(f"{told}; from here on latencies are predicted, not measured", stacklevel=4)
            self.warned = True
        return Reading(None, f"predicted only ({told})")


HERE, NOWHERE = Here(), Nowhere()


def meter(measure: bool | Meter) -> Meter:
    """True: this machine; False: nowhere."""
    if isinstance(measure, bool):
        return HERE if measure else NOWHERE
    return measure


def inference_ms(measured: Mapping[str, Any]) -> float:
    """Image to class scores: the body, where a bundle has one of its own, and the classification after it."""
    return sum(measured[name]["median_ms"] for name in ("body_ms", "classify_ms") if measured.get(name))


def _settled(once: Any, folder: Path, cap_ms: float) -> Mapping[str, Any]:
    """One measurement where it is under the cap, else the median of three."""
    attempts = [once(folder)]
    if inference_ms(attempts[0]) > cap_ms:
        attempts += [once(folder) for _ in range(RETRIES)]
    return sorted(attempts, key=inference_ms)[len(attempts) // 2]
