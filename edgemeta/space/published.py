"""Spaces of published benchmarks, operator by operator, so that their latency tables can teach and be searched.

Nothing of these is trained here: what counts is which operators run, at which shapes, and what waits for what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from edgemeta.errors import BadConfig
from edgemeta.space.ops import Tape
from edgemeta.types import Arch, Op, Shape


@dataclass(frozen=True)
class Published:
    """A space whose slots a function lays onto a tape; it answers what `space.Space` answers."""

    name: str
    in_shape: Shape  # the largest, where a slot decides it
    slots: tuple[tuple[str, tuple[Any, ...]], ...]
    lay: Callable[[Sequence[Any]], Tape]

    @property
    def size(self) -> int:
        return math.prod(len(options) for _, options in self.slots)

    def options(self, slot: int) -> range:
        return range(len(self.slots[slot][1]))

    def sample(self, *, rng: Random) -> Arch:
        return Arch(self.name, tuple(rng.randrange(len(options)) for _, options in self.slots))

    def ops(self, arch: Arch) -> tuple[Op, ...]:
        """Every operator of `arch` in order of execution."""
        if arch.space != self.name or len(arch.picks) != len(self.slots):
            raise BadConfig(f"{arch} is not of space {self.name}, which has {len(self.slots)} picks; give all of them")
        for (name, options), pick in zip(self.slots, arch.picks, strict=True):
            if not 0 <= pick < len(options):
                raise BadConfig(f"{arch}: {name} = {pick} is past its {len(options)} options; give a smaller one")
        return self.lay([options[pick] for (_, options), pick in zip(self.slots, arch.picks, strict=True)]).ops


# NAS-Bench-201 (Dong 2020, arXiv:2001.00326): a cell of four nodes and six edges, 15 times, at 32x32.
CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CELL_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CELLS_PER_STAGE = 5
_CELL_WIDTHS = (16, 32, 64)


def _lay_cells(edges: Sequence[str]) -> Tape:
    tape = Tape((3, 32, 32))
    tape.conv(_CELL_WIDTHS[0], 3)
    for width in _CELL_WIDTHS:
        if width != _CELL_WIDTHS[0]:
            _lay_reduction(tape, width)
        for _ in range(_CELLS_PER_STAGE):
            _lay_cell(tape, edges)
    tape.gap()
    return tape


def _lay_reduction(tape: Tape, width: int) -> None:
    entry = tape.last
    tape.conv(width, 3, stride=2, act="relu")
    main = tape.conv(width, 3)
    tape.avgpool(2, stride=2, at=entry)
    tape.conv(width, 1)
    tape.add(main)


def _lay_cell(tape: Tape, edges: Sequence[str]) -> None:
    """Each node is the sum of its edges."""
    nodes = [tape.last]
    for target in (1, 2, 3):
        total: int | None = None
        for (source, end), name in zip(CELL_EDGES, edges, strict=True):
            if end == target:
                value = _lay_edge(tape, name, nodes[source])
                total = value if total is None else tape.add(total)
        nodes.append(tape.last)


def _lay_edge(tape: Tape, name: str, at: int) -> int:
    width = tape.shape(at)[0]
    if name == "nor_conv_1x1":
        return tape.conv(width, 1, act="relu", at=at)
    if name == "nor_conv_3x3":
        return tape.conv(width, 3, act="relu", at=at)
    if name == "avg_pool_3x3":
        return tape.avgpool(3, at=at)
    return tape.skip(at=at) if name == "skip_connect" else tape.zero(at=at)


def nb201() -> Published:
    """15,625 cells; `picks` are the operators of the edges in the order of the benchmark's architecture string."""
    return Published("nb201", (3, 32, 32), tuple((f"edge{a}-{b}", CELL_OPS) for a, b in CELL_EDGES), _lay_cells)


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


def _lay_fbnet(blocks: Sequence[str]) -> Tape:
    tape = Tape((3, 32, 32))
    tape.conv(16, 3, act="relu")
    layers = [(width, stride if i == 0 else 1) for width, count, stride in _FBNET_STAGES for i in range(count)]
    for (width, stride), name in zip(layers, blocks, strict=True):
        _lay_block(tape, width, stride, name)
    tape.conv(_FBNET_LAST, 1, act="relu")
    tape.gap()
    return tape


def _lay_block(tape: Tape, width: int, stride: int, name: str) -> None:
    """Expand, shuffle where grouped, depthwise, project; a skip that changes the shape is a pointwise convolution."""
    entry, shape = tape.last, tape.shape(tape.last)
    if name == "skip":
        if shape[0] != width or stride != 1:
            tape.conv(width, 1, stride=stride, act="relu")
        return
    kernel, expansion, groups = FBNET_OPS[name]
    tape.conv(shape[0] * expansion, 1, groups=groups, act="relu")
    if groups > 1:
        tape.shuffle()
    tape.depthwise(kernel, stride=stride, act="relu")
    tape.conv(width, 1, groups=groups)
    if tape.shape(tape.last) == shape:
        tape.add(entry)


def fbnet() -> Published:
    """9^22 networks of 22 blocks; `picks` are the `op_idx` of the table."""
    names = (*FBNET_OPS, "skip")
    return Published("fbnet", (3, 32, 32), tuple((f"block{i + 1}", names) for i in range(22)), _lay_fbnet)


# Once-for-all MobileNetV3 (Cai 2020, arXiv:1908.09791): the image's size; of five stages the depth, and of each of four
# layers the kernel and the expansion. Layers past the depth are drawn and not there.
OFA_LAYERS = 4
OFA_STAGES = ((24, 2, False), (40, 2, True), (80, 2, False), (112, 1, True), (160, 2, True))  # width, stride, squeeze
_OFA_LAST = 960


def _lay_ofa(choices: Sequence[Any]) -> Tape:
    size, *rest = choices
    tape = Tape((3, size, size))
    tape.conv(16, 3, stride=2, act="relu")
    _lay_mobile(tape, 16, 3, 1, expansion=1, squeeze=False)
    for i, (width, stride, squeeze) in enumerate(OFA_STAGES):
        depth, *layers = rest[(1 + 2 * OFA_LAYERS) * i : (1 + 2 * OFA_LAYERS) * (i + 1)]
        for j in range(depth):
            kernel, expansion = layers[2 * j : 2 * j + 2]
            _lay_mobile(tape, width, kernel, stride if j == 0 else 1, expansion=expansion, squeeze=squeeze)
    tape.conv(_OFA_LAST, 1, act="relu")
    tape.gap()
    return tape


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


def ofa() -> Published:
    """MobileNetV3 nets at 128 to 224 pixels; h-swish is written as the relu it costs about as much as."""
    layer = (("kernel", (3, 5, 7)), ("expansion", (3, 4, 6)))
    stage = (("depth", (2, 3, 4)), *((f"layer{j + 1}.{n}", o) for j in range(OFA_LAYERS) for n, o in layer))
    slots = tuple((f"stage{i + 1}.{name}", options) for i in range(len(OFA_STAGES)) for name, options in stage)
    return Published("ofa", (3, 224, 224), (("size", tuple(range(128, 225, 4))), *slots), _lay_ofa)


PUBLISHED: Mapping[str, Callable[[], Published]] = {"nb201": nb201, "fbnet": fbnet, "ofa": ofa}
