"""A learner's functions as flat graphs of torch operators, for any number of examples and ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from edgemeta.contracts import Fast, Learner, Params, Support
from edgemeta.errors import BadBundle
from edgemeta.lowering.decompose import table

Named = Mapping[str, Tensor]
EXAMPLE = {"n": 11, "way": 5, "queries": 7}  # any sizes do, as long as no two are alike and none is 0 or 1


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
    """The three functions a device needs. Inputs are `features`, `onehot`, `slow.<name>` and `fast.<name>`."""

    start: Traced
    step: Traced
    predict: Traced


def trace(learner: Learner, slow: Params) -> TracedLearner:
    """Record `start`, `step` and `predict` on features (n, d) with n, way and the number of queries left open."""
    if not learner.on_features:
        raise BadBundle(
            f"'{learner.name}' changes the body, which cannot be lowered yet; choose one that adapts on features"
        )
    try:
        traced = _trace(learner, slow, learner.net.dim)
    except Exception as error:  # whatever torch says about code that no graph can hold
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadBundle(
            f"'{learner.name}' cannot be traced: {reason}; its functions must not branch on values or sizes"
        ) from error
    if set(traced.step.outputs) != set(traced.start.outputs):
        names = f"step returns {sorted(traced.step.outputs)}, start {sorted(traced.start.outputs)}"
        raise BadBundle(f"'{learner.name}': {names}; make them agree")
    return traced


def _trace(learner: Learner, slow: Params, dim: int) -> TracedLearner:
    """What `start` returns is what `step` and `predict` are recorded on, so the sizes of the fast tensors follow.

    Only n, way and the number of queries are symbols: a symbol for every size takes minutes.
    """

    def start(v: Named) -> Named:
        return _fast(learner.start(_part(v, "slow."), _support(v)))

    def step(v: Named) -> Named:
        return _fast(learner.step(_part(v, "slow."), _part(v, "fast."), _support(v)))

    def predict(v: Named) -> Named:
        return {"logits": learner.predict(_part(v, "slow."), _part(v, "fast."), v["features"])}

    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    support, queries = _inputs(mode, dim)
    fixed = {f"slow.{name}": _fake(mode, f"slow.{name}", value.detach()) for name, value in slow.items()}
    started = _record(mode, start, {**support, **fixed})
    fast = _results(started)
    stepped = _record(mode, step, {**support, **fixed, **fast})
    return TracedLearner(started, stepped, _record(mode, predict, {"features": queries, **fixed, **fast}))


def _inputs(mode: FakeTensorMode, dim: int) -> tuple[Named, Tensor]:
    """Support and queries whose numbers of rows and ways are symbols."""
    features = _fake(mode, "features", torch.zeros(EXAMPLE["n"], dim), (0,))
    queries = _fake(mode, "queries", torch.zeros(EXAMPLE["queries"], dim), (0,))
    ways = _fake(mode, "ways", torch.zeros(EXAMPLE["way"]), (0,))
    with mode:
        onehot = torch.zeros(features.shape[0], ways.shape[0])
    return {"features": features, "onehot": onehot}, queries


def _fake(mode: FakeTensorMode, name: str, value: Tensor, free: tuple[int, ...] = ()) -> Tensor:
    """A stand-in for `value` without data, its dimensions in `free` being symbols."""
    sizes = [DimDynamic.DYNAMIC if d in free else DimDynamic.STATIC for d in range(value.dim())]
    context: StatelessSymbolicContext = StatelessSymbolicContext(dynamic_sizes=sizes)
    return mode.from_tensor(value, source=ConstantSource(name), symbolic_context=context)


def _record(mode: FakeTensorMode, function: Callable[[Named], Named], named: Named) -> Traced:
    outputs: list[str] = []

    def flat(*values: Tensor) -> tuple[Tensor, ...]:
        results = function(dict(zip(named, values, strict=True)))
        outputs[:] = results
        return tuple(results.values())

    with mode:
        module = make_fx(flat, decomposition_table=table(), _allow_non_fake_inputs=True)(*named.values())
    module.graph.eliminate_dead_code()
    return Traced(module, tuple(named), tuple(outputs))


def _results(traced: Traced) -> Named:
    """The stand-ins that a recorded function returned."""
    return {name: node.meta["val"] for name, node in zip(traced.outputs, traced.results, strict=True)}


def _support(values: Named) -> Support:
    return Support(values["features"], values["onehot"])


def _part(values: Named, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _fast(fast: Fast) -> Named:
    return {f"fast.{name}": value for name, value in fast.items()}
