"""A learner's functions as flat graphs of torch operators, for any number of examples and ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, fx

from edgemeta.contracts import Fast, Learner, Params, Support
from edgemeta.errors import BadBundle, first_line
from edgemeta.lowering.decompose import table
from edgemeta.lowering.gradients import mask_before_unpool

if TYPE_CHECKING:  # a second of imports, which only functions that trace should cost
    from torch._subclasses.fake_tensor import FakeTensorMode

Named = Mapping[str, Tensor]
FEATURES, IMAGES = "features", "x"


class Sizes(NamedTuple):
    """Numbers of support rows, ways and queries."""

    n: int
    way: int
    queries: int


EXAMPLE = Sizes(11, 5, 7)  # any sizes do, as long as no two are alike and none is 0 or 1


@dataclass(frozen=True)
class Traced:
    """One function: `inputs` and `outputs` name the graph's placeholders and results, in order."""

    module: fx.GraphModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def placeholders(self) -> dict[str, fx.Node]:
        return dict(zip(self.inputs, self.module.graph.find_nodes(op="placeholder"), strict=True))

    @property
    def results(self) -> tuple[fx.Node, ...]:
        (results,) = self.module.graph.output_node().args
        assert isinstance(results, Iterable)
        return tuple(results)


@dataclass(frozen=True)
class TracedLearner:
    """The three functions a device needs. Inputs are `features` or `x`, `onehot`, `slow.<name>` and `fast.<name>`."""

    start: Traced
    step: Traced
    predict: Traced
    reads: str  # FEATURES or IMAGES, what examples and queries are called
    symbols: Mapping[str, str]  # a size that varies, as it was recorded -> n, way or q


def reads(learner: Learner) -> tuple[str, tuple[int, ...]]:
    """What a learner's examples are called in a graph, and the shape of one."""
    return (FEATURES, (learner.net.dim,)) if learner.on_features else (IMAGES, learner.net.in_shape)


def trace(learner: Learner, slow: Params, sizes: Sizes | None = None) -> TracedLearner:
    """Record `start`, `step` and `predict`, numbers of examples, ways and queries being open or as in `sizes`."""
    try:
        traced = _trace(learner, slow, sizes)
    except Exception as error:  # whatever torch says about code that no graph can hold
        reason = first_line(error)[:200]
        raise BadBundle(
            f"'{learner.name}' cannot be traced: {reason}; its functions must not branch on values or sizes"
        ) from error
    if set(traced.step.outputs) != set(traced.start.outputs):
        names = f"step returns {sorted(traced.step.outputs)}, start {sorted(traced.start.outputs)}"
        raise BadBundle(f"'{learner.name}': {names}; make them agree")
    return traced


def _trace(learner: Learner, slow: Params, sizes: Sizes | None) -> TracedLearner:
    """What `start` returns is what `step` and `predict` are recorded on, so the sizes of the fast tensors follow.

    Only n, way and the number of queries are symbols: a symbol for every size takes minutes.
    """
    name, shape = reads(learner)

    def start(v: Named) -> Named:
        return _fast(learner.start(_part(v, "slow."), _support(v)))

    def step(v: Named) -> Named:
        return _fast(learner.step(_part(v, "slow."), _part(v, "fast."), _support(v)))

    def predict(v: Named) -> Named:
        return {"logits": learner.predict(_part(v, "slow."), _part(v, "fast."), v[name])}

    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    support, queries = _inputs(mode, name, shape, sizes)
    fixed = {f"slow.{name}": _fake(mode, f"slow.{name}", value.detach()) for name, value in slow.items()}
    started = _record(mode, start, {**support, **fixed})
    with mode:
        # Each a tensor of its own: two that are one, as zeros or slow ones may be, would be taken for each other.
        fast = {key: value.clone() for key, value in _results(started).items()}
    stepped = _record(mode, step, {**support, **fixed, **fast})
    predicted = _record(mode, predict, {name: queries, **fixed, **fast})
    varied = zip((*support["onehot"].shape, queries.shape[0]), ("n", "way", "q"), strict=True)
    return TracedLearner(started, stepped, predicted, name, {str(size): symbol for size, symbol in varied})


def _inputs(mode: FakeTensorMode, name: str, shape: Sequence[int], sizes: Sizes | None) -> tuple[Named, Tensor]:
    """Support and queries whose numbers of rows and ways are symbols where `sizes` does not fix them."""
    rows, way, queries = sizes or EXAMPLE
    free = () if sizes else (0,)
    x = _fake(mode, name, torch.zeros(rows, *shape), free)
    ways = _fake(mode, "ways", torch.zeros(way), free)
    with mode:
        onehot = torch.zeros(x.shape[0], ways.shape[0])
    return {name: x, "onehot": onehot}, _fake(mode, "queries", torch.zeros(queries, *shape), free)


def _fake(mode: FakeTensorMode, name: str, value: Tensor, free: tuple[int, ...] = ()) -> Tensor:
    """A stand-in for `value` without data, its dimensions in `free` being symbols."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    sizes = [DimDynamic.DYNAMIC if d in free else DimDynamic.STATIC for d in range(value.dim())]
    context: StatelessSymbolicContext = StatelessSymbolicContext(dynamic_sizes=sizes)
    return mode.from_tensor(value, source=ConstantSource(name), symbolic_context=context)


def _record(mode: FakeTensorMode, function: Callable[[Named], Named], named: Named) -> Traced:
    from torch.fx.experimental.proxy_tensor import make_fx

    outputs: list[str] = []

    def flat(*values: Tensor) -> tuple[Tensor, ...]:
        results = function(dict(zip(named, values, strict=True)))
        outputs[:] = results
        return tuple(results.values())

    with mode:
        module = make_fx(flat, decomposition_table=table(), _allow_non_fake_inputs=True)(*named.values())
    mask_before_unpool(module.graph)
    module.graph.eliminate_dead_code()
    return Traced(module, tuple(named), tuple(outputs))


def _results(traced: Traced) -> Named:
    """The stand-ins that a recorded function returned."""
    return {name: node.meta["val"] for name, node in zip(traced.outputs, traced.results, strict=True)}


def _support(values: Named) -> Support:
    return Support(values[FEATURES if FEATURES in values else IMAGES], values["onehot"])


def _part(values: Named, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _fast(fast: Fast) -> Named:
    return {f"fast.{name}": value for name, value in fast.items()}
