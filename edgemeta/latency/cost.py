"""What one inference costs: time, live memory, storage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgemeta.contracts import Predictor
from edgemeta.types import FLOAT_BYTES, KIB, Cost, Op, Profile

# Bytes of an ONNX file beside its weights: a node with its names and attributes, and the tensor headers it brings.
_FILE_BYTES = 100
_NODE_BYTES = {"conv": 167, "maxpool": 62, "avgpool": 64, "add": 38, "gap": 33, "concat": 60, "shuffle": 410}
_OTHER_NODE_BYTES = 60  # kinds that only public tables hold, which are costed and never exported
_RELU_BYTES = 26
# The same where every value is quantised and taken back, and for each filter two scales and two zeros.
_INT8_NODE_BYTES = {"conv": 675, "maxpool": 250, "avgpool": 271, "add": 238, "gap": 238, "concat": 224, "shuffle": 634}
_INT8_FILTER_BYTES = 16


def cost(ops: Sequence[Op], predictor: Predictor) -> Cost:
    """Cost from image to class scores: the body by `predictor`, and the few-shot head where the profile timed one."""
    return _cost(ops, predictor, predictor.latency(ops).ms)


def upper(ops: Sequence[Op], predictor: Predictor) -> Cost:
    """As `cost`, with the upper end of the latency's 90 % interval, at a slow moment of the device.

    That is what to hold against a cap that must not break.
    """
    return _cost(ops, predictor, predictor.latency(ops).high_ms * predictor.slow_ratio)


def _cost(ops: Sequence[Op], predictor: Predictor, body_ms: float) -> Cost:
    ms = body_ms + predictor.head_ms
    precision = predictor.precision
    return Cost(ms, peak_ram_kib(ops, precision), flash_kib(ops, precision), energy_mj(ms, predictor))


def beside(profile: Profile) -> tuple[float, float, float | None, str]:
    """What a predictor says beside latencies: `head_ms`, `slow_ratio`, `per_ms_mj` and `precision` of its contract."""
    known = profile.overhead
    return known.get("head_ms", 0.0), known.get("slow_ratio", 1.0), known.get("per_ms_mj"), profile.precision


def energy_mj(ms: float, predictor: Predictor) -> float:
    """Energy of an inference that takes `ms`; infinite, so that it meets no cap, where the device's was not measured.

    That of the processor package, its idling included (see `energy`).
    """
    return math.inf if predictor.per_ms_mj is None else predictor.per_ms_mj * ms


def peak_ram_kib(ops: Sequence[Op], precision: str = "fp32") -> float:
    """Most KiB of activations alive at once, for one example.

    While an operator runs, its inputs, its output and every earlier result that a later operator still reads are
    alive; a result is freed after its last reader. A ReLU works in place. The image counts until its last reader, the
    last output always; weights are read from flash. Runtimes may hold more: this is what a planner can reach.

    An int8 network takes and gives float32 and holds bytes between: image and features are there twice while they are
    converted, which tells only in the smallest networks.

    >>> image, map_ = (1, 16, 16), (4, 16, 16)
    >>> peak_ram_kib([Op("conv", image, map_, kernel=3), Op("conv", map_, map_, kernel=3, inputs=(0,))])  # two maps
    8.0
    """
    whole = _peak_bytes(ops)
    if precision != "int8":
        return whole / KIB
    ends = max(math.prod(ops[0].in_shape), math.prod(ops[-1].out_shape))
    return max(whole // FLOAT_BYTES, (FLOAT_BYTES + 1) * ends) / KIB


def _peak_bytes(ops: Sequence[Op]) -> int:
    last = {j: i for i, op in enumerate(ops) for j in op.inputs}
    live = {-1: FLOAT_BYTES * math.prod(ops[0].in_shape)}
    peak = total = live[-1]
    for i, op in enumerate(ops):
        live[i] = op.act_bytes
        total += op.act_bytes
        peak = max(peak, total)
        for j in {*op.inputs, i}:
            if last.get(j, len(ops)) <= i:
                total -= live.pop(j)
    return peak


def flash_kib(ops: Sequence[Op], precision: str = "fp32") -> float:
    """KiB of the ONNX file: weights, plus what its nodes take (within 1 KiB for the spaces that ship)."""
    if precision == "int8":
        filters = sum(_INT8_FILTER_BYTES * op.out_shape[0] for op in ops if op.kind == "conv")
        weights = sum(op.weight_bytes // FLOAT_BYTES for op in ops)
        return (filters + weights + sum(_INT8_NODE_BYTES.get(op.kind, _OTHER_NODE_BYTES) for op in ops)) / KIB
    nodes = sum(
        op.weight_bytes + _NODE_BYTES.get(op.kind, _OTHER_NODE_BYTES) + (_RELU_BYTES if op.act == "relu" else 0)
        for op in ops
    )
    return (_FILE_BYTES + nodes) / KIB
