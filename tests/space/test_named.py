"""Names carry back to spaces."""

from __future__ import annotations

from random import Random

import pytest

from edgemeta.errors import BadProfile
from edgemeta.space.named import named
from edgemeta.space.presets import PUBLISHED, SPACES, edge

KNOWN = [edge((3, 40, 20)), *(make() for make in SPACES.values()), *(make() for make in PUBLISHED.values())]


@pytest.mark.parametrize("space", KNOWN, ids=lambda space: space.name)
def test_a_name_says_its_space(space):
    again = named(space.name)
    assert (again.name, again.in_shape, again.slots) == (space.name, space.in_shape, space.slots)
    arch = space.sample(rng=Random(0))
    assert again.ops(arch) == space.ops(arch)


@pytest.mark.parametrize(
    "name",
    ["", "edge", "nb-201", "edgy-1x28x28", "edge-1x28", "edge-1x28xa", "edge-1x28x28x1", "edge-0x28x28", "edge-1x-2x3"],
)
def test_an_unknown_name_is_told_the_nearest(name):
    with pytest.raises(BadProfile, match=f"{name!r} is unknown here; ") as caught:
        named(name)
    assert "\n" not in str(caught.value)
