"""Operator kinds: from an input shape to an `Op` with its output shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemeta.types import Op, Shape


class Tape:
    """Records operators one after another; the only place that knows how shapes follow from kinds."""

    def __init__(self, in_shape: Shape):
        self._in_shape = in_shape
        self._ops: list[Op] = []

    @property
    def last(self) -> int:
        """Position of the newest operator; -1 stands for the network's input."""
        return len(self._ops) - 1

    @property
    def ops(self) -> tuple[Op, ...]:
        return tuple(self._ops)

    def shape(self, position: int) -> Shape:
        return self._in_shape if position < 0 else self._ops[position].out_shape

    def _push(self, kind: str, out: Shape, inputs: tuple[int, ...], **settings: Any) -> int:
        self._ops.append(Op(kind, self.shape(inputs[0]), out, inputs=inputs, **settings))
        return self.last

    def conv(
        self, width: int, kernel: int, *, stride: int = 1, groups: int = 1, act: str = "none", at: int | None = None
    ) -> int:
        """Convolution padded by kernel // 2: height h becomes ceil(h / stride). Batch norm is folded into it.

        This and what follows reads the newest result, or the one `at` a position.
        """
        at = self.last if at is None else at
        _, h, w = self.shape(at)
        out = (width, -(-h // stride), -(-w // stride))
        return self._push("conv", out, (at,), kernel=kernel, stride=stride, groups=groups, act=act)

    def depthwise(self, kernel: int, *, stride: int = 1, act: str = "none") -> int:
        width = self.shape(self.last)[0]
        return self.conv(width, kernel, stride=stride, groups=width, act=act)

    def maxpool(self) -> int:
        """2x2 max-pool of stride 2: height h becomes floor(h / 2)."""
        c, h, w = self.shape(self.last)
        return self._push("maxpool", (c, h // 2, w // 2), (self.last,), kernel=2, stride=2)

    def avgpool(self, kernel: int, *, stride: int = 1, at: int | None = None) -> int:
        """Average pool, padded to keep the size where it has no stride."""
        at = self.last if at is None else at
        c, h, w = self.shape(at)
        return self._push("avgpool", (c, h // stride, w // stride), (at,), kernel=kernel, stride=stride)

    def shuffle(self) -> int:
        """Channels interleaved across groups (ShuffleNet, arXiv:1707.01083)."""
        return self._push("shuffle", self.shape(self.last), (self.last,))

    def skip(self, *, at: int) -> int:
        """The value as it is: an edge of a cell that runtimes may copy or leave out."""
        return self._push("skip", self.shape(at), (at,))

    def zero(self, *, at: int) -> int:
        """Nothing: an edge of a cell that adds zeros."""
        return self._push("zero", self.shape(at), (at,))

    def add(self, other: int) -> int:
        return self._push("add", self.shape(self.last), (self.last, other))

    def scale(self, other: int) -> int:
        """The value at `other`, each channel times the newest result (channels, 1, 1)."""
        return self._push("scale", self.shape(other), (other, self.last))

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
