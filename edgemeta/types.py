"""The records every module speaks in: frozen, and with the unit in the name of each measured field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor  # seconds to import, which --help need not wait for

FLOAT_BYTES = 4
KIB = 1024.0
Shape = tuple[int, int, int]  # (channels, height, width) of one example


def text_of(shape: Iterable[int]) -> str:
    """Sizes as they are told and as names hold them.

    >>> text_of((1, 28, 28))
    '1x28x28'
    """
    return "x".join(map(str, shape))


def dotted(picks: Iterable[object]) -> str:
    """Picks of an architecture as they are told.

    >>> dotted((0, 1, 2))
    '0.1.2'
    """
    return ".".join(map(str, picks))


@dataclass(frozen=True)
class Op:
    """One operator of an architecture, after batch-norm folding, for one example.

    `inputs` are positions of its producers in the list the operator stands in; -1 is the network's input.
    The list is in topological order, so a reader needs no graph library to walk it.

    >>> op = Op("conv", (1, 28, 28), (8, 14, 14), kernel=3, stride=2, act="relu")
    >>> op.key, op.macs
    ('conv_1x28x28-8x14x14_k3s2g1_relu', 14112)
    """

    kind: str  # what `space.ops.Tape` lays: "conv", "maxpool", "add", "gap" (global average pool), ...
    in_shape: Shape
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: str = "none"  # "relu" or "none", fused into the operator
    inputs: tuple[int, ...] = (-1,)
    dilation: int = 1
    flat: bool = False  # along the width alone, as in series of one row: kernel and stride are 1 along the height

    @cached_property
    def key(self) -> str:
        """What two operators must share to share a timing: everything but their place in the network."""
        shape = f"{text_of(self.in_shape)}-{text_of(self.out_shape)}"
        seldom = (f"d{self.dilation}" if self.dilation > 1 else "") + ("f" if self.flat else "")
        return f"{self.kind}_{shape}_k{self.kernel}s{self.stride}g{self.groups}{seldom}_{self.act}"

    @cached_property
    def window(self) -> tuple[int, int]:
        """Kernel (height, width)."""
        return (1 if self.flat else self.kernel, self.kernel)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """Stride (height, width)."""
        return (1 if self.flat else self.stride, self.stride)

    @cached_property
    def pads(self) -> tuple[int, int]:
        """Zeros on each side (height, width): odd kernels are centred on their pixel, even ones are not padded."""
        high, wide = (self.dilation * (size // 2) if size % 2 else 0 for size in self.window)
        return (high, wide)

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the convolution kernel (out, in/groups, height, width); () for operators without weights."""
        if self.kind != "conv":
            return ()
        return (self.out_shape[0], self.in_shape[0] // self.groups, *self.window)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one example; pools and additions count none."""
        return math.prod(self.weight_shape) * self.out_shape[1] * self.out_shape[2] if self.weight_shape else 0

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the folded float32 kernel and bias."""
        return FLOAT_BYTES * (math.prod(self.weight_shape) + self.out_shape[0]) if self.weight_shape else 0

    @cached_property
    def act_bytes(self) -> int:
        """Bytes of the float32 output of one example."""
        return FLOAT_BYTES * math.prod(self.out_shape)


@dataclass(frozen=True)
class Arch:
    """A point of a space: the index of the option picked in each of its slots."""

    space: str
    picks: tuple[int, ...]

    def swap(self, slot: int, pick: int) -> Arch:
        """The same architecture with another option in one slot."""
        return replace(self, picks=self.picks[:slot] + (pick,) + self.picks[slot + 1 :])

    def __str__(self) -> str:
        return f"{self.space}:{dotted(self.picks)}"

    @classmethod
    def parse(cls, text: str, space: str = "") -> Arch:
        """What `str` gives, or its picks alone where the space is given; ValueError where it is neither.

        >>> str(Arch.parse("0.2.1", "tiny-1x12x12").swap(1, 0))
        'tiny-1x12x12:0.0.1'
        """
        own, _, picks = text.strip().rpartition(":")
        return cls(own or space, tuple(map(int, picks.split("."))))


@dataclass(frozen=True)
class Cost:
    """What one inference of one example costs; the same record, used as a cap, is a budget.

    >>> found = Cost(latency_ms=0.5, ram_kib=64.0)
    >>> found.fits(Cost(latency_ms=0.6)), found.over(Cost(latency_ms=0.4, ram_kib=64.0))
    (True, ('latency_ms',))
    """

    latency_ms: float = math.inf
    ram_kib: float = math.inf  # peak of live activations
    flash_kib: float = math.inf  # weights and graphs on disk
    energy_mj: float = math.inf  # as a cost, inf: not measured, so it meets no cap

    def fits(self, cap: Cost) -> bool:
        """True where no field passes the cap's."""
        return not self.over(cap)

    def over(self, cap: Cost) -> tuple[str, ...]:
        """Names of the fields that pass the cap's."""
        return tuple(f.name for f in fields(self) if not getattr(self, f.name) <= getattr(cap, f.name))

    def to_json(self) -> dict[str, float | None]:
        """JSON has no infinity: None stands for it."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, float | None]) -> Cost:
        return cls(**{name: math.inf if value is None else value for name, value in fields.items()})

    def __str__(self) -> str:
        named = ((*f.name.rsplit("_", 1), getattr(self, f.name)) for f in fields(self))
        units = {"ms": "ms", "kib": "KiB", "mj": "mJ"}
        shown = [f"{name} {value:.4g} {units[unit]}" for name, unit, value in named if value < math.inf]
        return ", ".join(shown) or "no cap"


class Timing(NamedTuple):
    """A repeated measurement; for an operator, what the timings of whole networks say of it (profiles/README.md)."""

    median_ms: float
    iqr_ms: float
    n: int


@dataclass(frozen=True)
class NetTiming:
    """A whole network timed in one piece: the reference that operator sums are calibrated on."""

    arch: Arch
    timing: Timing
    ops: tuple[Op, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Measured latencies of one device under one runtime and setting."""

    device: str
    runtime: str  # e.g. "onnxruntime"
    versions: Mapping[str, str]
    threads: int
    precision: str  # "fp32" or "int8"
    batch: int
    measured_on: str  # ISO date
    cpu: str
    governor: str  # the CPU frequency governor, "unknown" where the kernel shows none
    synthetic: bool
    overhead: Mapping[str, float]  # calibrated constants, names ending in _ms, _mj or _ratio
    ops: Mapping[str, Timing]  # Op.key -> timing
    nets: tuple[NetTiming, ...] = ()
    status: Mapping[str, str] = field(default_factory=dict)  # Op.key -> why a row is not "ok"
    affinity: tuple[int, ...] = ()  # cores the timings were pinned to or allowed on; () where the system does not tell
    drift: tuple[tuple[float, float], ...] = ()  # (seconds since the start, ms of the reference network), in time order
    doubts: tuple[str, ...] = ()  # what speaks against these timings, e.g. a busy machine; () where nothing does
    source: str = ""  # where the timings come from, where they were not measured here


@dataclass(frozen=True)
class Episode:
    """One few-shot task. Labels are 0..way-1; `classes` names the data set's classes behind them."""

    support_x: Tensor  # (n_support, ...) images or features
    support_y: Tensor  # (n_support,) int64
    query_x: Tensor  # (n_query, ...)
    query_y: Tensor  # (n_query,) int64
    way: int
    shot: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """What became of one architecture: its cost, and its score if it was worth training."""

    arch: Arch
    cost: Cost  # predicted
    score: float | None  # few-shot accuracy on validation classes, 0..1
    score_ci: float | None  # half width of its 95 % interval
    fidelity: int  # training episodes behind the score
    seed: int
    seconds: float
    searcher: str
    status: str  # "ok", "infeasible" or "failed: why"
    device: str = ""  # what it was proposed for, ...
    cap: Cost = Cost()  # ... and under which caps
