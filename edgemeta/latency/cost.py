"""What one inference costs: time, live memory, storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgemeta.contracts import Predictor
from edgemeta.types import FLOAT_BYTES, KIB, Cost, Op

# Bytes of an ONNX file beside its weights: a node with its names and attributes, and the tensor headers it brings.
_FILE_BYTES = 100
_NODE_BYTES = {"conv": 167, "maxpool": 62, "add": 38, "gap": 33}
_RELU_BYTES = 26


def cost(ops: Sequence[Op], predictor: Predictor) -> Cost:
    """Cost from image to class scores: the body by `predictor`, and the few-shot head where the profile timed one."""
    return Cost(predictor.latency(ops).ms + predictor.head_ms, peak_ram_kib(ops), flash_kib(ops))


def upper(ops: Sequence[Op], predictor: Predictor) -> Cost:
    """As `cost`, with the upper end of the latency's 90 % interval: what to hold against a cap that must not break."""
    return replace(cost(ops, predictor), latency_ms=predictor.latency(ops).high_ms + predictor.head_ms)


def peak_ram_kib(ops: Sequence[Op]) -> float:
    """Most KiB of activations alive at once, for one float32 example.

    While an operator runs, its inputs, its output and every earlier result that a later operator still reads are
    alive; a result is freed after its last reader. A ReLU works in place. The image counts until its last reader, the
    last output always; weights are read from flash. Runtimes may hold more: this is what a planner can reach.
    """
    last = {j: i for i, op in enumerate(ops) for j in op.inputs}
    live = {-1: FLOAT_BYTES * _volume(ops[0].in_shape)}
    peak = total = live[-1]
    for i, op in enumerate(ops):
        live[i] = op.act_bytes
        total += op.act_bytes
        peak = max(peak, total)
        for j in {*op.inputs, i}:
            if last.get(j, len(ops)) <= i:
                total -= live.pop(j)
    return peak / KIB


def _volume(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def flash_kib(ops: Sequence[Op]) -> float:
    """KiB of the float32 ONNX file: weights, plus what its nodes take (within 1 KiB for the spaces that ship)."""
    nodes = sum(op.weight_bytes + _NODE_BYTES[op.kind] + (_RELU_BYTES if op.act == "relu" else 0) for op in ops)
    return (_FILE_BYTES + nodes) / KIB
