"""Spaces of stages: layers of one kind and width, then half the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from edgemeta.errors import BadConfig
from edgemeta.space.ops import LAYERS, Tape
from edgemeta.space.space import Segment, Space
from edgemeta.types import Arch, Shape, text_of


@dataclass(frozen=True)
class Stage:
    """The options of one stage: `down` halves the resolution by a pool after it or a stride in its first layer."""

    depth: tuple[int, ...] = (1, 2)
    width: tuple[int, ...] = (16, 32, 64)
    kernel: tuple[int, ...] = (3, 5)
    kind: tuple[str, ...] = ("conv", "sep", "mb3", "mb6")
    down: tuple[str, ...] = ("pool", "stride")


def staged(kind: str, in_shape: Shape, stages: Sequence[Stage]) -> Space:
    """The space of these stages. Inputs of one row are series: all works along their width.

    The first layer of the first stage is always a plain convolution: a depthwise filter that sees one channel
    is a bottleneck of that one channel.
    """
    segments = []
    for i, stage in enumerate(stages):
        slots = tuple((f"stage{i + 1}.{option.name}", getattr(stage, option.name)) for option in fields(stage))
        segments.append(Segment(slots, partial(_lay, i == 0)))
    return Space(f"{kind}-{text_of(in_shape)}", in_shape, tuple(segments))


def layers(space: Space, arch: Arch) -> list[tuple[str, str]]:
    """(place, kind) of each layer in order, as ("stage1.layer1", "conv"); refused where a space has no such stages."""
    stages, named = space.settings(arch), {option.name for option in fields(Stage)}
    if len(stages) < len(space.segments) or any(set(stage) != named for stage in stages):
        raise BadConfig(
            f"{space.name} has no stages of layers; choose edge, seq or tiny, or make a space with `staged`"
        )
    return [
        (f"stage{i + 1}.layer{j + 1}", kind)
        for i, stage in enumerate(stages)
        for j, kind in enumerate(_kinds(i == 0, stage["depth"], stage["kind"]))
    ]


def _lay(first: bool, tape: Tape, options: Sequence[Any]) -> None:
    depth, width, kernel, kind, down = options
    for layer, own in enumerate(_kinds(first, depth, kind)):
        LAYERS[own](tape, width, kernel, 2 if layer == 0 and down == "stride" else 1)
    if down == "pool" and tape.halves:
        tape.maxpool()


def _kinds(first: bool, depth: int, kind: str) -> list[str]:
    return ["conv" if first and layer == 0 else kind for layer in range(depth)]
