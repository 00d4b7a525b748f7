"""From the name that architectures and profiles carry back to the space."""

from __future__ import annotations

import re

from edgemeta.errors import BadProfile, nearest
from edgemeta.space.presets import PUBLISHED, SPACES
from edgemeta.space.space import Space


def named(name: str) -> Space:
    """A published space by its name, or a preset by its own and the input shape.

    >>> named("edge-1x28x28").size, named("nb201").size
    (268435456, 15625)
    """
    if name in PUBLISHED:
        return PUBLISHED[name]()
    found = re.fullmatch(r"(.+)-([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", name)
    if not found or found[1] not in SPACES:
        known = [*PUBLISHED, *(f"{kind}-1x28x28" for kind in SPACES)]
        raise BadProfile(f"space {name!r} is unknown here; {nearest(name, known)}")
    channels, height, width = (int(size) for size in found.groups()[1:])
    return SPACES[found[1]]((channels, height, width))
