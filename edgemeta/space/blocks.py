"""Spaces of blocks that are chosen one by one, each behind the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from edgemeta.space.cells import CIFAR
from edgemeta.space.ops import Tape
from edgemeta.space.space import Segment, Space
from edgemeta.types import Shape, text_of

# FBNet (Wu 2019, arXiv:1812.03443) as HW-NAS-Bench (Li 2021, arXiv:2103.10584) times it: 32x32 inputs, these strides.
FBNET_OPS: Mapping[str, tuple[int, int, int]] = {  # name -> (kernel, expansion, groups)
    "k3_e1": (3, 1, 1),
    "k3_e1_g2": (3, 1, 2),
    "k3_e3": (3, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e1": (5, 1, 1),
    "k5_e1_g2": (5, 1, 2),
    "k5_e3": (5, 3, 1),
    "k5_e6": (5, 6, 1),
}
_FBNET_STAGES = ((16, 1, 1), (24, 4, 1), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
_FBNET_LAST = 1504


def fbnet() -> Space:
    """9^22 networks of 22 blocks; `picks` are the `op_idx` of the table."""
    return _fbnet("fbnet", CIFAR)


def trainable_fbnet(in_shape: Shape = CIFAR) -> Space:
    """The same for any input."""
    return _fbnet(f"fbnet-{text_of(in_shape)}", in_shape)


def _fbnet(name: str, in_shape: Shape) -> Space:
    blocks = _blocks((*FBNET_OPS, "skip"), _FBNET_STAGES, _lay_fbnet)
    return Space(name, in_shape, (_fixed(16, 3), *blocks, _fixed(_FBNET_LAST, 1)))


def _blocks(
    names: tuple[str, ...], stages: Sequence[tuple[int, int, int]], lay: Callable[..., None]
) -> tuple[Segment, ...]:
    """A choice among `names` for each block. stages: width, blocks, stride of the first; lay: (width, stride, ...)."""
    layers = [(width, stride if i == 0 else 1) for width, count, stride in stages for i in range(count)]
    return tuple(Segment(((f"block{i + 1}", names),), partial(lay, *layer)) for i, layer in enumerate(layers))


def _fixed(width: int, kernel: int) -> Segment:
    """A convolution that every network has."""
    return Segment((), partial(_lay_fixed, width, kernel))


def _lay_fixed(width: int, kernel: int, tape: Tape, options: Sequence[Any]) -> None:
    tape.conv(width, kernel, act="relu")


def _lay_fbnet(width: int, stride: int, tape: Tape, names: Sequence[str]) -> None:
    """Expand, shuffle where grouped, depthwise, project; a skip that changes the shape is a pointwise convolution."""
    (name,) = names
    entry, shape = tape.last, tape.shape(tape.last)
    if name == "skip":
        if shape[0] != width or stride != 1:
            tape.conv(width, 1, stride=stride, act="relu")
        return
    kernel, expansion, groups = FBNET_OPS[name]
    tape.conv(shape[0] * expansion, 1, groups=groups, act="relu")
    if groups > 1:
        tape.shuffle(groups)
    tape.depthwise(kernel, stride=stride, act="relu")
    tape.conv(width, 1, groups=groups)
    if tape.shape(tape.last) == shape:
        tape.add(entry)


# NAS-Bench-Macro (Su 2021, arXiv:2103.11922): eight blocks of three kinds; its parameters and work are met exactly.
MACRO_OPS = ("identity", "mb3_k3", "mb6_k5")
_MACRO_STAGES = ((64, 2, 2), (128, 3, 2), (256, 3, 2))
_MACRO_LAST = 1280


def macro() -> Space:
    """6561 networks of eight blocks; `picks` are the `arch` of the table."""
    return _macro("macro", CIFAR)


def trainable_macro(in_shape: Shape = CIFAR) -> Space:
    """The same for any input."""
    return _macro(f"macro-{text_of(in_shape)}", in_shape)


def _macro(name: str, in_shape: Shape) -> Space:
    blocks = _blocks(MACRO_OPS, _MACRO_STAGES, _lay_macro)
    return Space(name, in_shape, (_fixed(32, 3), *blocks, _fixed(_MACRO_LAST, 1)))


def _lay_macro(width: int, stride: int, tape: Tape, names: Sequence[str]) -> None:
    """MobileNetV2's block (Sandler 2018, arXiv:1801.04381); an identity that changes the shape is a convolution."""
    (name,), shape = names, tape.shape(tape.last)
    if name != "identity":
        kernel, expansion = (3, 3) if name == "mb3_k3" else (5, 6)
        _lay_mobile(tape, width, kernel, stride, expansion=expansion, squeeze=False)
    elif shape[0] != width or stride > 1:
        tape.conv(width, 1, stride=stride)


# Once-for-all MobileNetV3 (Cai 2020, arXiv:1908.09791): the image's size; of five stages the depth, and of each of four
# layers the kernel and the expansion. Layers past the depth are drawn and not there.
OFA_LAYERS = 4
OFA_STAGES = ((24, 2, False), (40, 2, True), (80, 2, False), (112, 1, True), (160, 2, True))  # width, stride, squeeze
_OFA_LAST = 960


def ofa() -> Space:
    """MobileNetV3 nets at 128 to 224 pixels; h-swish is written as the relu it costs about as much as."""
    layer = (("kernel", (3, 5, 7)), ("expansion", (3, 4, 6)))
    stage = (("depth", (2, 3, 4)), *((f"layer{j + 1}.{n}", o) for j in range(OFA_LAYERS) for n, o in layer))
    stages = tuple(
        Segment(tuple((f"stage{i + 1}.{name}", options) for name, options in stage), partial(_lay_ofa, *shape))
        for i, shape in enumerate(OFA_STAGES)
    )
    stem = Segment((("size", tuple(range(128, 225, 4))),), _lay_ofa_stem)
    return Space("ofa", (3, 224, 224), (stem, *stages, _fixed(_OFA_LAST, 1)))


def _lay_ofa_stem(tape: Tape, options: Sequence[Any]) -> None:
    (size,) = options
    tape.start((3, size, size))
    tape.conv(16, 3, stride=2, act="relu")
    _lay_mobile(tape, 16, 3, 1, expansion=1, squeeze=False)


def _lay_ofa(width: int, stride: int, squeeze: bool, tape: Tape, options: Sequence[Any]) -> None:
    depth, *layers = options
    for j in range(depth):
        kernel, expansion = layers[2 * j : 2 * j + 2]
        _lay_mobile(tape, width, kernel, stride if j == 0 else 1, expansion=expansion, squeeze=squeeze)


def _lay_mobile(tape: Tape, width: int, kernel: int, stride: int, *, expansion: int, squeeze: bool) -> None:
    """Expand, depthwise, weigh the channels where it squeezes (Howard 2019, arXiv:1905.02244), project."""
    entry, shape = tape.last, tape.shape(tape.last)
    if expansion > 1:
        tape.conv(shape[0] * expansion, 1, act="relu")
    wide = tape.depthwise(kernel, stride=stride, act="relu")
    if squeeze:
        middle = tape.shape(wide)[0]
        tape.gap()
        tape.conv(middle // 4, 1, act="relu")
        tape.conv(middle, 1)
        tape.scale(wide)
    tape.conv(width, 1)
    if tape.shape(tape.last) == shape:
        tape.add(entry)
