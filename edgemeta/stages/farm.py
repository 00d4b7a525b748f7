"""The devices of an inventory: all profiled at once, and a search's candidates measured on those that are alike."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemeta import config as configs
from edgemeta.errors import BadConfig, BadProfile, nearest
from edgemeta.latency import inventory, measure, runners, unseen, visits
from edgemeta.latency import kit as kits
from edgemeta.latency import profile as profiles
from edgemeta.latency.farm import Farm
from edgemeta.latency.inventory import Device
from edgemeta.latency.kit import Kit
from edgemeta.space.space import Space
from edgemeta.stages.meters import FarmMeter
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Arch, Profile

NOTE = "farm"  # of the run folder: with what each device was profiled


@dataclass(frozen=True)
class Settings:
    """What a device is profiled with; devices of equal settings share a kit."""

    space: str
    seed: int
    threads: int
    precision: str
    nets: int
    timings: int | None
    seconds: float


def check(config: configs.Profile | configs.Search) -> None:
    """Refuse an inventory with mistakes, and devices that it does not hold."""
    assert config.devices is not None
    found = inventory.read(config.devices)
    if isinstance(config, configs.Profile):
        for kind in {device.kind: None for device in found.only(config.only)}:
            found.alike(kind)
    elif config.device == configs.HOST:
        known = nearest("", {device.kind for device in found.devices})
        raise BadConfig(f"--devices needs --device, one of {config.devices}: {known}")
    else:
        found.alike(config.device)


def networks(space: Space, *, nets: int, timings: int | None, seed: int) -> tuple[list[Arch], int]:
    """What is timed, and how many of it cover every operator of the space."""
    if timings is None:
        return kits.covering_and_random(space, nets, seed=seed)
    return unseen.support(space, timings, seed=seed), 0


def profile_all(config: configs.Profile, folder: RunFolder, space: Space) -> Told:
    """Time every device that is asked for at once and save each profile as it comes; the text that tells of them.

    What was timed before with the same settings is not timed again. A device that cannot be reached is set aside and
    told with its reason; `BadProfile` where none came through.
    """
    assert config.devices is not None
    chosen = inventory.read(config.devices).only(config.only)
    kept = {device.name: _before(folder, device, settings_of(device, config, space)) for device in chosen}
    missing = [device for device in chosen if config.again or not kept[device.name]]
    again = "timed before with the same settings (--again times anew)"
    texts = {name: f"{again} -> {path}" if path else "" for name, path in kept.items()}
    facts = {name: facts_of(profiles.load(path), path) if path else {} for name, path in kept.items()}
    lost: dict[str, str] = {}
    for device, made in _profiled(missing, config, folder, space, lost):
        texts[device.name] = _text(folder, space, device, made)
        facts[device.name] = facts_of(made, _path(folder, space.name, device))
    if len(lost) == len(chosen):
        whom = "the device" if len(lost) == 1 else f"none of {len(lost)} devices"
        verb = "could not be profiled" if len(lost) == 1 else "could be profiled"
        raise BadProfile(f"{whom} {verb}: {'; '.join(lost.values())}")
    texts |= {name: f"set aside: {why}" for name, why in lost.items()}
    facts |= {name: {"set_aside": why} for name, why in lost.items()}
    timed_now = [device.name for device in missing if device.name not in lost]
    rows = [{"name": name, "timed_now": name in timed_now, **own} for name, own in facts.items()]
    return told("\n".join(f"{name}: {text}" for name, text in texts.items()), {"devices": rows})


def facts_of(made: Profile, path: Path) -> dict[str, Any]:
    """What a profile holds, for programs."""
    same = ("device", "runtime", "threads", "precision", "measured_on", "doubts")
    counts = {"operators": len(made.ops), "networks": len(made.nets)}
    return {"profile": path, **{name: getattr(made, name) for name in same}, **counts}


def profile_of(config: configs.Search, folder: RunFolder, space: Space) -> Profile:
    """The profile of the device, or of one that is like it, in the run folder; measured now where there is none."""
    alike = _alike(config)
    for device in alike:
        if _path(folder, space.name, device).exists():
            kept, asked = profiles.load(_path(folder, space.name, device)), _asked(config)
            if (kept.threads, kept.precision) == (device.threads or asked.threads, device.precision or asked.precision):
                return kept
    lost: dict[str, str] = {}
    for _, made in _profiled(alike, _asked(config), folder, space, lost, one=True):
        return made
    raise BadProfile(
        f"there is no profile of {config.device!r} in {folder.root} and none can be made: {'; '.join(lost.values())}"
    )


def meter_of(config: configs.Search) -> FarmMeter:
    """Measures candidates on the devices that are like `--device`."""
    return FarmMeter(config.device, _alike(config), progress=config.progress)


def settings_of(device: Device, config: configs.Profile, space: Space) -> Settings:
    """What the device's table says, else what the command says."""
    values = {name: getattr(config, name) for name in ("threads", "precision", "nets", "timings", "seconds")}
    own = {name: value for name in values if (value := getattr(device, name)) is not None}
    return Settings(space.name, config.seed, **values | own)


def _alike(config: configs.Search) -> tuple[Device, ...]:
    assert config.devices is not None
    return inventory.read(config.devices).alike(config.device)


def _asked(config: configs.Search) -> configs.Profile:
    """As `edgemeta profile` would be called for this search."""
    return configs.make(configs.Profile, {"run": config.run, "seed": config.seed, "progress": config.progress})


def _path(folder: RunFolder, space: str, device: Device) -> Path:
    return folder.root / f"profile-{space}-{device.name}.json"


def _profiled(
    devices: Sequence[Device],
    config: configs.Profile,
    folder: RunFolder,
    space: Space,
    lost: dict[str, str],
    *,
    one: bool = False,
) -> Iterator[tuple[Device, Profile]]:
    """Profiles of devices as they come, saved; reasons of those set aside go to `lost`. `one`: of whichever can."""
    farm, by_name = Farm(devices), {device.name: device for device in devices}
    with tempfile.TemporaryDirectory(prefix="edgemeta-farm-") as temporary:
        made = _kits({device: settings_of(device, config, space) for device in devices}, Path(temporary), space)

        def do(device: Device, _: str, stop: threading.Event) -> Profile:
            kit, out = made[device.name], Path(temporary) / f"{device.name}.json"
            runners.over_ssh(kit, out, to=device.target, progress=config.progress, stop=stop)
            return measure.profile_from(kit, visits.read(out, kit))

        names = [device.name for device in devices]
        jobs, owners = (names[:1], None) if one else (names, names)
        with closing(farm.run(jobs, do, owners=owners)) as answers:
            for _, name, profile in answers:
                if name:
                    device = by_name[name]
                    profiles.save(profile, _path(folder, space.name, device))
                    _note(folder, device, settings_of(device, config, space))
                    yield device, profile
        lost.update(farm.lost)


def _kits(wanted: Mapping[Device, Settings], folder: Path, space: Space) -> dict[str, Kit]:
    """Device's name -> its kit, one for all devices of equal settings."""
    made: dict[Settings, Kit] = {}
    for settings in wanted.values():
        if settings in made:
            continue
        archs, covering = networks(space, nets=settings.nets, timings=settings.timings, seed=settings.seed)
        how: dict[str, Any] = dict(seed=settings.seed, covering=covering, threads=settings.threads)
        how |= dict(precision=settings.precision, seconds=settings.seconds)
        made[settings] = kits.write(folder / f"kit-{len(made)}", space, archs, **how)
    return {device.name: made[settings] for device, settings in wanted.items()}


def _text(folder: RunFolder, space: Space, device: Device, made: Profile) -> str:
    counts = f"{len(made.ops)} operators, {len(made.nets)} networks"
    first = f"{made.device}: {counts} -> {_path(folder, space.name, device)}"
    return "\n".join([first, *(f"  doubt: {doubt}" for doubt in made.doubts)])


def _identity(device: Device, settings: Settings) -> dict[str, Any]:
    """What must be the same for a profile to be that of this device and these settings."""
    return {**asdict(settings), "host": device.target.host, "port": device.port, "user": device.user}


def _note(folder: RunFolder, device: Device, settings: Settings) -> None:
    noted = folder.read(NOTE) or {}
    folder.note(NOTE, noted | {f"{settings.space} {device.name}": _identity(device, settings)})


def _before(folder: RunFolder, device: Device, settings: Settings) -> Path | None:
    """The profile that is there already, if it is of this device and these settings."""
    path = _path(folder, settings.space, device)
    noted = (folder.read(NOTE) or {}).get(f"{settings.space} {device.name}")
    if noted != _identity(device, settings) or not path.exists():
        return None
    return path
