"""Small steps through a space."""

from __future__ import annotations

from random import Random

from edgemeta.space.space import Space
from edgemeta.types import Arch


def mutate(arch: Arch, space: Space, *, rng: Random) -> Arch:
    """`arch` with another option in one slot (the mutation of Real 2019, arXiv:1802.01548); `arch` itself where its
    space has no other."""
    free = [slot for slot in range(len(arch.picks)) if len(space.options(slot)) > 1]
    if not free:
        return arch
    slot = rng.choice(free)
    return arch.swap(slot, rng.choice([pick for pick in space.options(slot) if pick != arch.picks[slot]]))


def neighbours(arch: Arch, space: Space) -> list[Arch]:
    """Every architecture one `mutate` away.

    >>> from edgemeta.space.presets import tiny
    >>> len(neighbours(tiny().sample(rng=Random(0)), tiny()))  # of ten slots with two options each, but two with four
    14
    """
    return [
        arch.swap(slot, pick)
        for slot in range(len(arch.picks))
        for pick in space.options(slot)
        if pick != arch.picks[slot]
    ]
