"""Our spaces in NNI's search-space JSON, and NNI's parameters as architectures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemeta.errors import BadConfig, nearest
from edgemeta.space.space import Space
from edgemeta.types import Arch


def search_space(space: Space) -> dict[str, dict[str, Any]]:
    """One `choice` per slot, in the order of `Arch.picks`.

    Source: NNI 3.0, search space specification.

    >>> from edgemeta.space.presets import tiny
    >>> search_space(tiny())["stage1.width"]
    {'_type': 'choice', '_value': [4, 8]}
    """
    return {name: {"_type": "choice", "_value": list(options)} for name, options in space.slots}


def parameters(arch: Arch, space: Space) -> dict[str, Any]:
    """What NNI calls the parameters of an architecture: slot -> option."""
    space.ops(arch)  # refuses what is not of this space
    return {name: options[pick] for (name, options), pick in zip(space.slots, arch.picks, strict=True)}


def arch_of(given: Mapping[str, Any], space: Space) -> Arch:
    """The architecture of NNI's parameters; BadConfig where a slot is missing, unknown or has no such option.

    >>> from random import Random
    >>> from edgemeta.space.presets import tiny
    >>> arch = tiny().sample(rng=Random(0))
    >>> arch_of(parameters(arch, tiny()), tiny()) == arch
    True
    """
    slots = dict(space.slots)
    for name in given:
        if name not in slots:
            raise BadConfig(f"parameter {name!r} is no slot of {space.name}; {nearest(name, slots)}")
    picks = []
    for name, options in slots.items():
        if name not in given:
            raise BadConfig(f"NNI's parameters lack {name} of {space.name}; give it one of {options}")
        if given[name] not in options:
            raise BadConfig(f"{name} = {given[name]!r} is not in {space.name}; choose one of {options}")
        picks.append(options.index(given[name]))
    return Arch(space.name, tuple(picks))


def require_same(given: Mapping[str, Any], space: Space) -> None:
    """BadConfig where a search space in NNI's JSON is not that of `space`, with the first difference."""
    own = search_space(space)
    for name in (*own, *given):
        if name not in own:
            raise BadConfig(f"search space has {name!r}, which is no slot of {space.name}; {nearest(name, own)}")
        if given.get(name) != own[name]:
            raise BadConfig(f"search space has {name} as {given.get(name)}; {space.name} has {own[name]}")
