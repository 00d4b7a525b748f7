"""From settings to parts: the space, the device's predictor, the data and the problem that a config names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgemeta import config as configs
from edgemeta.data.episode import draw, require_variety
from edgemeta.data.sources import SOURCES
from edgemeta.data.splits import MIN_CLASSES
from edgemeta.errors import BadConfig, BadData, nearest
from edgemeta.latency import checks, energy, machine, measure
from edgemeta.latency import profile as profiles
from edgemeta.latency.kit import SECONDS
from edgemeta.latency.table import predictor as predictor_for
from edgemeta.learners import LEARNERS
from edgemeta.learners.evaluate import queries
from edgemeta.learners.settings import Training, largest, recipe
from edgemeta.lowering.bundle import head_kib
from edgemeta.search import KNOWN
from edgemeta.search.jobs import DataSpec, data_pool, fingerprint, load_data
from edgemeta.search.problem import Problem
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.stages import farm, imports, meters
from edgemeta.stages.meters import Meter
from edgemeta.stages.run_folder import RunFolder
from edgemeta.types import Profile

HOST = configs.HOST


def kept_settings(config: configs.Common, kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a kind that the last search in a run folder had; none where there was no search.

    Another source of data that is `given` does not take over where the last one lay.
    """
    noted = RunFolder(config.run).read("search")
    own = set(configs.names(kind)) - set(configs.names(configs.Common))
    if "data" in given:
        own -= {"root", "ink", "in_shape"}
    return {name: value for name, value in noted["config"].items() if name in own} if noted else {}


def pick(registry: Mapping[str, Any], kind: str, name: str) -> Any:
    """A member of a registry; an unknown name is answered with the nearest one."""
    if name not in registry:
        raise BadConfig(f"unknown {kind} {name!r}; {nearest(name, registry)}")
    return registry[name]


def space_of(config: configs.Task | configs.Profile) -> Space:
    return pick(SPACES, "space", config.space)(config.in_shape)


def profile_of(config: configs.Search, folder: RunFolder, space: Space) -> Profile:
    """The profile of the device that is searched for; the host's own is measured on first use and kept in the run."""
    if config.devices:
        return farm.profile_of(config, folder, space)
    if config.device != HOST:
        return known_profile(config.device, space)
    if config.storage and (shared := folder.shared_profile(space.name)).exists():
        return profiles.load(shared)
    return host_profile(folder, space, seed=config.seed, progress=config.progress)


def meter_of(config: configs.Search, profile: Profile) -> Meter:
    """How candidates are measured: here, on the devices of an inventory, or not at all."""
    here = config.device == HOST and profile.cpu == machine.cpu()
    return farm.meter_of(config) if config.devices else meters.meter(here)


def known_profile(device: str, space: Space) -> Profile:
    """The profile of a device by its name or its file."""
    profile = profiles.load(device)
    if not profile.ops and "per_mmac_ms" not in profile.overhead:
        _check_nets(profile, space)
    return profile


def _check_nets(profile: Profile, space: Space) -> None:
    """Where whole networks are all a profile has, some must be of this space, at times that their work may take."""
    works = [(space.ops(net.arch), net.timing.median_ms) for net in checks.nets_of(profile, space.name)]
    for doubt in checks.check_unit(works, f"profile {profile.device!r}", batch=profile.batch):
        warnings.warn(doubt, stacklevel=2)


def host_profile(
    folder: RunFolder,
    space: Space,
    *,
    seed: int,
    threads: int = 1,
    nets: int = 600,
    seconds: float = SECONDS,
    progress: bool = True,
    again: bool = False,
) -> Profile:
    """The profile in the run folder, measured where there is none of this machine and runtime, or `again`."""
    path = folder.profile(space.name)
    if path.exists() and not again:
        kept = profiles.load(path)
        if kept.cpu == machine.cpu() and kept.versions == measure.versions():
            return kept
        threads = kept.threads
    resumable = path.with_suffix(".partial.json")
    limits: dict[str, Any] = dict(nets=nets, seconds=seconds, partial=resumable)
    made = measure.measure_host(space, seed=seed, threads=threads, progress=progress, **limits)
    made = energy.added(made, space)
    profiles.save(made, path)
    resumable.unlink(missing_ok=True)
    return made


def data_of(config: configs.Task, name: str | None = None) -> DataSpec:
    """The data a config names, or another source at the same input shape."""
    source = name or config.data
    root = str(config.root.resolve()) if config.root and not name else None
    ink = "as-is" if name else config.ink
    return DataSpec(source, root, str(config.cache), config.in_shape, config.split_seed, ink)


def mixed(config: configs.Train) -> tuple[DataSpec, ...]:
    """The other data that a training mixes in."""
    found = []
    for name, _, root in (entry.partition("=") for entry in config.mix):
        where = str(Path(root).expanduser().resolve()) if root else None
        found.append(replace(data_of(config, name), root=where))
    return tuple(found)


def require_data(
    spec: DataSpec, way: int, shot: int, *, trainings: Sequence[Training] = (Training(),), mix: Sequence[DataSpec] = ()
) -> None:
    """Load what is trained on, say what was skipped, and refuse what no episode can be drawn from."""
    rng = np.random.default_rng(0)
    _require_splits(spec)
    for other in mix:
        _require_other(other)
    pools, judge = [data_pool(own, "train") for own in (spec, *mix)], data_pool(spec, "val")
    for own in (*pools, judge):
        require_variety(own)
    for phase in (phase.suited(pools) for training in trainings for phase in training.phases() if phase.episodes):
        for taught in pools:
            draw(taught, largest(phase.way), largest(phase.shot), phase.query, rng=rng)
    draw(judge, way, shot, queries(judge, way, shot), rng=rng)


def _require_other(spec: DataSpec) -> None:
    if not load_data(spec).splits.get("train"):
        raise BadData(
            f"{spec.name} keeps none of its {len(load_data(spec).class_names)} classes for training: nothing of it can "
            "be mixed in; leave it out of --mix"
        )


def _require_splits(spec: DataSpec) -> None:
    data = load_data(spec)
    for note in data.notes:
        warnings.warn(f"{data.name}: {note}", stacklevel=2)
    for split in ("train", "val"):
        if not data.splits.get(split):
            raise BadData(
                f"{data.name} has {len(data.class_names)} classes and none for {split!r}: {MIN_CLASSES} or more are "
                "split in three; add classes, or train on --data glyphs and teach them to the bundle: `edgemeta enroll`"
            )


def check(config: Any) -> None:
    """Refuse, before anything takes time or leaves a trace, what the registries do not know."""
    spaces = imports.SPACES if isinstance(config, configs.Import) else SPACES
    registries = {"space": spaces, "data": SOURCES, "learner": LEARNERS, "searcher": KNOWN}
    for name, registry in registries.items():
        if hasattr(config, name):
            pick(registry, name, getattr(config, name))
    for learner in getattr(config, "learners", ()):
        pick(LEARNERS, "learner", learner)
    for entry in getattr(config, "mix", ()):
        pick(SOURCES, "data", entry.partition("=")[0])
    rungs = getattr(config, "rungs", ())
    if list(rungs) != sorted(set(rungs)):
        raise BadConfig(f"setting rungs = {rungs}: should rise, for example {configs.Search.rungs}")
    if getattr(config, "devices", None):
        farm.check(config)
    if getattr(config, "energy_mj", math.inf) < math.inf:
        _check_energy(config)


def _check_energy(config: configs.Search) -> None:
    """A cap on energy needs a device whose energy is known, or this machine where the kernel shows it."""
    if config.devices:
        raise BadConfig(f"setting energy_mj = {config.energy_mj:g}: not measured over ssh; leave --energy-mj out")
    if config.device != HOST:
        energy.require(profiles.load(config.device), config.energy_mj)
    elif why := energy.why_not():
        kept = RunFolder(config.run).profile(space_of(config).name)
        if not kept.exists() or energy.RATE not in profiles.load(kept).overhead:
            raise BadConfig(f"setting energy_mj = {config.energy_mj:g}: {why}; leave --energy-mj out: cap --latency-ms")


def problem_of(config: configs.Search, folder: RunFolder, space: Space, profile: Profile) -> Problem:
    data = data_of(config)
    if config.energy_mj < math.inf:
        energy.require(profile, config.energy_mj)
    return Problem(
        space=space,
        predictor=predictor_for(profile),
        cap=config.cap,
        learner=config.learner,
        data=data,
        weights=folder.weights,
        device=profile.device,
        fingerprint=fingerprint(data),
        head_kib=partial(head_kib, config.learner),
        int8=config.int8 or profile.precision == "int8",
        way=config.way,
        shot=config.shot,
        rungs=config.rungs,
        eval_episodes=config.eval_episodes,
        training=recipe(config.learner),
        seed=config.seed,
    )


def accelerator(asked: str, precision: str = "fp32") -> str:
    """What torch calls the device to train on, where it can compute in this precision."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise BadConfig("setting accelerator = 'cuda': torch sees no CUDA device here; leave --accelerator out")
    found = "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
    if precision == "bf16" and found == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise BadConfig(f"setting precision = 'bf16': {name} computes no bfloat16; leave --precision out")
    return found
