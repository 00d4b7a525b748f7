"""The spaces a user can name, and well-known nets as points of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from edgemeta.errors import BadConfig
from edgemeta.space.blocks import fbnet, macro, ofa, trainable_fbnet, trainable_macro
from edgemeta.space.cells import darts, nb201, trainable_nb201
from edgemeta.space.space import Space
from edgemeta.space.staged import Stage, staged
from edgemeta.types import Arch, Shape

GRAY28: Shape = (1, 28, 28)


def edge(in_shape: Shape = GRAY28) -> Space:
    """The default: 2.7e8 picks, from tapered four-conv nets past Conv4-64 to MobileNetV2-like ones."""
    stages = (
        Stage(width=(8, 16, 32, 64), kind=("conv", "sep", "mb3", "mb6")),
        Stage(width=(16, 32, 48, 64)),
        Stage(width=(32, 48, 64, 96)),
        Stage(width=(48, 64, 96, 128)),
    )
    return staged("edge", in_shape, stages)


def tiny(in_shape: Shape = (1, 12, 12)) -> Space:
    """For tests: two stages, every kind of layer, small enough to train and time in moments."""
    stage = Stage(width=(4, 8))
    return staged("tiny", in_shape, (stage, stage))


def seq(in_shape: Shape = (3, 1, 128)) -> Space:
    """Series of sensors or sound, (channels, 1, time): as `edge`, with kernels along time and four times as long."""
    kernel = (3, 5, 9, 15)
    stages = (
        Stage(width=(8, 16, 32), kernel=kernel, kind=("conv", "sep", "mb3")),
        Stage(width=(16, 32, 48), kernel=kernel, kind=("conv", "sep", "mb3")),
        Stage(width=(32, 48, 64), kernel=kernel, kind=("conv", "sep", "mb3")),
        Stage(width=(48, 64, 96), kernel=kernel, kind=("conv", "sep", "mb3")),
    )
    if in_shape[1] != 1:
        raise BadConfig(f"a series has one row, not {in_shape[1]}; give its shape as channels x 1 x time, as 3x1x128")
    return staged("seq", in_shape, stages)


# What can be searched, for inputs of any shape, ...
SPACES: Mapping[str, Callable[..., Space]] = {
    "edge": edge,
    "tiny": tiny,
    "darts": darts,
    "seq": seq,
    "nb201": trainable_nb201,
    "fbnet": trainable_fbnet,
    "macro": trainable_macro,
}
# ... and the spaces of public latency tables, operator by operator as they were timed.
PUBLISHED: Mapping[str, Callable[[], Space]] = {"nb201": nb201, "fbnet": fbnet, "ofa": ofa, "macro": macro}


def tapered(space: Space) -> Arch:
    """Four conv - BN - ReLU - pool layers of 16-32-64-128 filters (97 k parameters)."""
    return space.arch([{"width": width, "kind": "conv", "down": "pool"} for width in (16, 32, 64, 128)])


def conv4_64(space: Space) -> Arch:
    """The four-conv net of the few-shot literature (Vinyals 2016, arXiv:1606.04080): 64 filters in each layer."""
    return space.arch([{"width": 64, "kind": "conv", "down": "pool"}] * 4)


def mobile(space: Space) -> Arch:
    """A small MobileNetV2-like net: strided stem, inverted residuals, global average pool."""
    widths, kinds = (16, 32, 48, 96), ("mb3", "mb6", "mb6", "mb6")
    return space.arch(
        [{"depth": 2, "width": w, "kind": k, "down": "stride"} for w, k in zip(widths, kinds, strict=True)]
    )


LANDMARKS = {"tapered": tapered, "conv4-64": conv4_64, "mobile": mobile}


def landmarks(space: Space) -> list[Arch]:
    """The well-known nets that are points of a space; none in most."""
    found = []
    for landmark in LANDMARKS.values():
        with contextlib.suppress(BadConfig):
            found.append(landmark(space))
    return found
