"""Operator kinds: from an input shape to an `Op` with its output shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edgemeta.types import Op, Shape


class Tape:
    """Records operators one after another; the only place that knows how shapes follow from kinds.

    Each method gives the position of its result, and reads the newest result, or the one `at` a position. An input of
    one row is a series: kernels and strides then work along the width alone.

    >>> tape = Tape((1, 28, 28))
    >>> entry = tape.conv(8, 3, stride=2, act="relu")
    >>> tape.add(entry, at=tape.conv(8, 1))
    2
    >>> [(op.kind, op.out_shape, op.inputs) for op in tape.ops]
    [('conv', (8, 14, 14), (-1,)), ('conv', (8, 14, 14), (0,)), ('add', (8, 14, 14), (1, 0))]
    """

    def __init__(self, in_shape: Shape):
        self._ops: list[Op] = []
        self.start(in_shape)

    def start(self, in_shape: Shape) -> None:
        """Begin with inputs of this shape, where a slot decides it."""
        if self._ops:
            raise ValueError(f"{len(self._ops)} operators stand on the tape already")
        self._in_shape, self.flat = in_shape, in_shape[1] == 1 < in_shape[2]

    @property
    def last(self) -> int:
        """Position of the newest operator; -1 stands for the network's input."""
        return len(self._ops) - 1

    @property
    def ops(self) -> tuple[Op, ...]:
        return tuple(self._ops)

    @property
    def halves(self) -> bool:
        """Whether half the resolution of the newest result leaves something."""
        return min(self.shape(self.last)[2 if self.flat else 1 :]) > 1

    def shape(self, position: int) -> Shape:
        return self._in_shape if position < 0 else self._ops[position].out_shape

    def _push(self, kind: str, out: Shape, inputs: tuple[int, ...], **settings: Any) -> int:
        self._ops.append(Op(kind, self.shape(inputs[0]), out, inputs=inputs, **settings))
        return self.last

    def _slide(self, kind: str, width: int | None, kernel: int, stride: int, at: int | None, **settings: Any) -> int:
        """A window over the map. Odd kernels are padded and leave ceil(size / stride), even ones floor."""
        at = self.last if at is None else at
        c, h, w = self.shape(at)
        up = stride - 1 if kernel % 2 else 0
        out = (width or c, h if self.flat else (h + up) // stride, (w + up) // stride)
        return self._push(kind, out, (at,), kernel=kernel, stride=stride, flat=self.flat, **settings)

    def conv(
        self,
        width: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: str = "none",
        at: int | None = None,
    ) -> int:
        """Convolution of an odd kernel; batch norm is folded into it."""
        return self._slide("conv", width, kernel, stride, at, groups=groups, dilation=dilation, act=act)

    def depthwise(
        self, kernel: int, *, stride: int = 1, dilation: int = 1, act: str = "none", at: int | None = None
    ) -> int:
        width = self.shape(self.last if at is None else at)[0]
        return self.conv(width, kernel, stride=stride, groups=width, dilation=dilation, act=act, at=at)

    def maxpool(self, kernel: int = 2, *, stride: int = 2, at: int | None = None) -> int:
        return self._slide("maxpool", None, kernel, stride, at)

    def avgpool(self, kernel: int, *, stride: int = 1, at: int | None = None) -> int:
        """Padding counts for nothing in the average."""
        return self._slide("avgpool", None, kernel, stride, at)

    def shuffle(self, groups: int) -> int:
        """Channels interleaved across groups (ShuffleNet, arXiv:1707.01083)."""
        return self._push("shuffle", self.shape(self.last), (self.last,), groups=groups)

    def skip(self, *, at: int) -> int:
        """The value as it is: an edge of a cell that runtimes may copy or leave out."""
        return self._push("skip", self.shape(at), (at,))

    def zero(self, *, at: int) -> int:
        """Nothing: an edge of a cell that adds zeros."""
        return self._push("zero", self.shape(at), (at,))

    def add(self, other: int, *, at: int | None = None) -> int:
        at = self.last if at is None else at
        return self._push("add", self.shape(at), (at, other))

    def concat(self, positions: Sequence[int]) -> int:
        """The channels of all of them, one after another."""
        channels = sum(self.shape(at)[0] for at in positions)
        return self._push("concat", (channels, *self.shape(positions[0])[1:]), tuple(positions))

    def scale(self, other: int) -> int:
        """The value at `other`, each channel times the newest result (channels, 1, 1)."""
        return self._push("scale", self.shape(other), (other, self.last))

    def forget_unread(self) -> None:
        """Drop what the newest result does not need."""
        needed = {self.last}
        for i in range(self.last, -1, -1):
            if i in needed:
                needed.update(self._ops[i].inputs)
        place = {old: new for new, old in enumerate(sorted(needed | {-1}), start=-1)}
        kept = [self._ops[old] for old in sorted(needed) if old >= 0]
        self._ops = [replace(op, inputs=tuple(place[j] for j in op.inputs)) for op in kept]

    def gap(self) -> int:
        """Global average pool to (channels, 1, 1)."""
        return self._push("gap", (self.shape(self.last)[0], 1, 1), (self.last,))


def plain(tape: Tape, width: int, kernel: int, stride: int) -> None:
    """conv - BN - ReLU, the layer of the few-shot literature's four-conv net (Vinyals 2016, arXiv:1606.04080)."""
    tape.conv(width, kernel, stride=stride, act="relu")


def separable(tape: Tape, width: int, kernel: int, stride: int) -> None:
    """Depthwise then pointwise (MobileNet, arXiv:1704.04861), with no ReLU between the two.

    The departure is measured: short meta-training of depthwise nets gains ~15 points without that ReLU.
    """
    tape.depthwise(kernel, stride=stride)
    tape.conv(width, 1, act="relu")


def inverted(expand: int) -> Callable[[Tape, int, int, int], None]:
    """MBConv (MobileNetV2, arXiv:1801.04381): expand, depthwise, linear projection, residual where shapes agree.

    As in `separable`, the depthwise convolution is linear.
    """

    def layer(tape: Tape, width: int, kernel: int, stride: int) -> None:
        entry, shape = tape.last, tape.shape(tape.last)
        tape.conv(shape[0] * expand, 1, act="relu")
        tape.depthwise(kernel, stride=stride)
        tape.conv(width, 1)
        if tape.shape(tape.last) == shape:
            tape.add(entry)

    return layer


LAYERS: dict[str, Callable[[Tape, int, int, int], None]] = {
    "conv": plain,
    "sep": separable,
    "mb3": inverted(3),
    "mb6": inverted(6),
}
