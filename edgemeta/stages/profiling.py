"""The ways to a profile: this machine, another one over ssh, or a kit that is carried by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgemeta import config as configs
from edgemeta.latency import kit as kits
from edgemeta.latency import measure, runners, visits
from edgemeta.latency import profile as profiles
from edgemeta.latency.remote import Target
from edgemeta.space.space import Space
from edgemeta.stages import assemble, farm
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Arch, Profile


def profiled(config: configs.Profile, folder: RunFolder) -> tuple[Profile, Path]:
    """The profile asked for, and where it was saved.

    The common one of this machine becomes the run's own, which `search` finds; any other stands beside it.
    """
    if config.from_ and config.kit:
        kit = kits.read(config.kit)
        return _saved(config, folder, measure.profile_from(kit, visits.read(config.from_, kit)), kit.space)
    space = assemble.space_of(config)
    if _common(config):
        timed: dict[str, Any] = dict(seed=config.seed, threads=config.threads, nets=config.nets, seconds=config.seconds)
        made = assemble.host_profile(folder, space, again=True, progress=config.progress, **timed)
        return made, profiles.save(made, config.out) if config.out else folder.profile(space.name)
    kept = folder.root / f"{_name(config, space)}.partial.json"
    archs, covering = _networks(config, space)
    made = measure.measure(
        space,
        archs,
        run=_runner(config),
        seed=config.seed,
        covering=covering,
        threads=config.threads,
        precision=config.precision,
        seconds=config.seconds,
        partial=kept,
        prefix="" if config.ssh else "host-",
        progress=config.progress,
    )
    saved = _saved(config, folder, made, space)
    kept.unlink(missing_ok=True)
    return saved


def write_kit(config: configs.Profile) -> Told:
    """Write the kit to carry by hand, and say what to do with it."""
    assert config.kit is not None
    space = assemble.space_of(config)
    archs, covering = _networks(config, space)
    kits.clear(config.kit)
    settings: dict[str, Any] = dict(seed=config.seed, covering=covering, threads=config.threads)
    made = kits.write(config.kit, space, archs, precision=config.precision, seconds=config.seconds, **settings)
    kits.carry(made.folder)
    there, here = f"python3 {runners.RUNNER}", f"edgemeta profile --kit {made.folder} --from timings.json"
    text = (
        f"{len(archs)} networks of {space.name} -> {made.folder}\n"
        f"copy the folder to the device, there run: {there}\n"
        f"then bring timings.json back: {here}"
    )
    facts = {"kit": made.folder, "space": space.name, "networks": len(archs)}
    return told(text, facts | {"run_there": there, "run_here_then": here})


def text(profile: Profile, path: Path) -> Told:
    """What was measured, where it is, and what speaks against it."""
    first = f"{profile.device}: {len(profile.ops)} operators, {len(profile.nets)} networks -> {path}"
    return told("\n".join([first, *(f"doubt: {doubt}" for doubt in profile.doubts)]), farm.facts_of(profile, path))


def _common(config: configs.Profile) -> bool:
    """Whether this is what the bundles of a search on this machine will run on."""
    here = not config.ssh and config.runtime == measure.RUNTIME
    return here and config.precision == "fp32" and config.timings is None


def _networks(config: configs.Profile, space: Space) -> tuple[list[Arch], int]:
    return farm.networks(space, nets=config.nets, timings=config.timings, seed=config.seed)


def _runner(config: configs.Profile) -> Callable[..., Path]:
    if config.ssh:
        return partial(runners.over_ssh, to=Target(config.ssh, python=config.remote_python))
    return runners.RUNTIMES[config.runtime]


def _name(config: configs.Profile, space: Space) -> str:
    return f"profile-{space.name}-{config.runtime}-{config.precision}-{config.threads}t"


def _saved(config: configs.Profile, folder: RunFolder, made: Profile, space: Space) -> tuple[Profile, Path]:
    few = "" if made.ops else f"-{len(made.nets)}-nets"
    path = config.out or folder.root / f"profile-{space.name}-{made.device}{few}.json"
    return made, profiles.save(made, path)
