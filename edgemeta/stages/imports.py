"""`edgemeta profile import`: profiles of devices that are somewhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemeta import config as configs
from edgemeta.errors import BadConfig, nearest
from edgemeta.latency import by_hand, machine, public
from edgemeta.latency import profile as profiles
from edgemeta.report.tables import table
from edgemeta.space.presets import PUBLISHED
from edgemeta.space.presets import SPACES as SEARCHED
from edgemeta.terminal import Told, told
from edgemeta.types import Profile

BY_HAND = "timings"
FORMATS = (*public.FORMATS, BY_HAND)
SPACES: Mapping[str, Callable[..., Any]] = {**SEARCHED, **PUBLISHED}


def run(config: configs.Import) -> Told:
    """Write the profile, or list the devices of a table that none was chosen from."""
    if config.format not in FORMATS:
        raise BadConfig(f"setting format = {config.format!r}: {nearest(config.format, FORMATS)}; give --format")
    assert config.file is not None
    if config.device:
        return _written(_profile(config, config.file), config.out)
    if config.format == BY_HAND:
        raise BadConfig("timings taken by hand need the name of the device they were taken on; give --device")
    found = public.devices(config.file, config.format)
    return told(f"{table(found)}\nchoose one with --device", {"devices": found})


def _profile(config: configs.Import, file: Path) -> Profile:
    if config.format != BY_HAND:
        return public.read(file, config.format, config.device)
    make = SPACES[config.space]
    space = make() if config.space in PUBLISHED else make(config.in_shape)
    return by_hand.read(file, space, config.device, threads=config.threads, precision=config.precision)


def _written(profile: Profile, out: Path | None) -> Told:
    path = profiles.save(profile, out or Path(f"{machine.slug(profile.device).replace('-', '_')}.json"))
    times = sorted(net.timing.median_ms for net in profile.nets)
    name = profile.nets[0].arch.space
    first = f"{profile.device}: {len(times)} networks of {name}, {times[0]:.4g} to {times[-1]:.4g} ms"
    said = [f"{first}, batch {profile.batch} -> {path}", *(f"doubt: {doubt}" for doubt in profile.doubts)]
    facts = {"device": profile.device, "profile": path, "space": name, "networks": len(times), "batch": profile.batch}
    facts |= {"fastest_ms": times[0], "slowest_ms": times[-1], "doubts": profile.doubts, "source": profile.source}
    return told("\n".join([*said, f"source: {profile.source}"]), facts)
