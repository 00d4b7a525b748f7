"""The four contracts. Each is a few functions: state goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgemeta.types import Arch, Op, Shape, Trial

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Params = dict[str, "Tensor"]  # trained by the outer loop; names starting with "stat." are running statistics
Fast = dict[str, "Tensor"]  # what a device changes while it learns


class Support(NamedTuple):
    """Labelled examples of a task. A row of zeros in `onehot` is padding and must change nothing."""

    x: Tensor  # (n, d) features or (n, C, H, W) images, as the learner's `on_features` says
    onehot: Tensor  # (n, way) float


class Net(NamedTuple):
    """A network body built from an architecture's operators."""

    ops: tuple[Op, ...]
    in_shape: Shape
    dim: int  # features per example
    init: Callable[..., Params]  # *, rng: torch.Generator -> params
    body: Callable[..., Tensor]  # params, x (n, C, H, W), train=False -> z (n, dim); train=True updates "stat."
    products: Callable[..., Tensor]  # params, x -> z: the same as matrix products, for `vmap` over params
    precision: str = "fp32"  # or "bf16": of its convolutions and products; parameters and features are float32


class Learner(NamedTuple):
    """A few-shot learner of one network. `step` is the adapt graph of the bundle and `predict` its infer graph.

    Learners with `on_features` leave the body alone: their support and queries are features, and a device pays
    microseconds. `start` sees the support because the number of ways is only known on the device.
    """

    name: str
    net: Net
    on_features: bool
    steps: int | None  # how often a device applies `step`; None: once per example of the support
    init: Callable[..., Params]  # *, rng: torch.Generator -> slow
    start: Callable[[Params, Support], Fast]  # slow, support -> fast
    step: Callable[[Params, Fast, Support], Fast]
    predict: Callable[[Params, Fast, Tensor], Tensor]  # slow, fast, x -> logits (n, way)
    # slow, tasks, weights -> loss and gradient, where it is not that of the query loss
    outer: Callable[..., tuple[Tensor, Params]] | None = None
    transductive: bool = False  # queries are normalised by one another: to be said beside every figure
    # Fast tensors have a row for each class, and those of all examples are the sums of those of some and of the others,
    # zeros standing for a class that is not among them: a device may add shots up instead of keeping them.
    sums: bool = False


class Searcher(Protocol):
    """Proposes architectures and learns from what became of them."""

    def ask(self) -> Arch: ...

    def tell(self, trial: Trial) -> None: ...


class Latency(NamedTuple):
    """A predicted latency and the interval that should hold the measured one nine times in ten."""

    ms: float
    low_ms: float
    high_ms: float


class Additive(NamedTuple):
    """A predictor as sums over operators, and what becomes of them: what lets `latency.batch` look stages up."""

    sums: Callable[[Sequence[Sequence[Op]]], np.ndarray]  # networks -> (networks, terms), adding up over stages
    latency_ms: Callable[[np.ndarray], np.ndarray]  # (networks, terms) -> (networks,)


class Predictor(Protocol):
    """Latency of a whole network: it sees all operators at once, because latency need not add up."""

    head_ms: float  # of one classification of 5 ways, after the network; 0 where the device has none timed
    slow_ratio: float  # how much slower the device is at its slow moments; 1 where that is not known
    per_ms_mj: float | None  # energy per ms of inference; None where it was not measured
    precision: str  # "fp32" or "int8", of the networks that were timed

    def latency(self, ops: Sequence[Op]) -> Latency: ...

    def additive(self, space: Any) -> Additive: ...
