"""The layers of a staged architecture, as its stages say."""

from __future__ import annotations

import pytest

from edgemeta.errors import BadConfig
from edgemeta.space.presets import nb201, tiny
from edgemeta.space.space import Segment, Space
from edgemeta.space.staged import layers
from edgemeta.types import Arch


def test_layers_have_their_places_and_kinds():
    space = tiny()
    arch = space.arch([{"depth": 2, "kind": "mb3"}, {"depth": 1, "kind": "sep"}])
    assert layers(space, arch) == [("stage1.layer1", "conv"), ("stage1.layer2", "mb3"), ("stage2.layer1", "sep")]


def test_segments_that_are_no_stages_are_refused():
    space = nb201()
    with pytest.raises(BadConfig, match="nb201 has no stages of layers; choose edge"):
        layers(space, space.arch([{}]))
    stem = Segment((), lambda tape, options: None)
    with pytest.raises(BadConfig, match="no stages of layers"):
        layers(Space("stemmed", (1, 12, 12), (stem, *tiny().segments)), Arch("stemmed", (0,) * 10))
