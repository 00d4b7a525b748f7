"""A supernet: one set of weights for every network of a space of stages, each of which takes slices of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from edgemeta.contracts import Net, Params
from edgemeta.errors import BadConfig
from edgemeta.nets.build import BN_MOMENTUM, build
from edgemeta.space.ops import LAYERS, Tape
from edgemeta.space.space import Space
from edgemeta.space.staged import layers
from edgemeta.types import Arch

Part = tuple[str, tuple[slice, ...]]  # a shared tensor and what is taken of it
NORM, STATISTICS = ("gamma", "beta"), ("mean", "var")  # of the batch norm after each convolution


@dataclass(frozen=True)
class Supernet:
    """Shared kernels by name, as "stage2.layer1.sep.0" for the last convolution of that layer where it is separable.

    A network takes the leading channels of the widest and the middle of the largest kernel (Yu 2020, BigNAS,
    arXiv:2003.11142, section 3), and the first layers of a stage: what it has are views, so that gradients reach the
    shared tensors, and any learner can run it.
    """

    space: Space
    per_kind: bool
    shapes: Mapping[str, tuple[int, ...]]  # (out, in / groups, height, width) of each shared kernel

    def init(self, *, rng: torch.Generator) -> Params:
        """Kaiming-normal kernels, identity batch norm; no statistics, so that every batch is normalised by its own."""
        params: Params = {}
        for name, shape in self.shapes.items():
            weight = torch.randn(shape, generator=rng) * math.sqrt(2 / math.prod(shape[1:]))
            params[f"{name}.weight"] = weight.contiguous(memory_format=torch.channels_last)
            params[f"{name}.gamma"], params[f"{name}.beta"] = torch.ones(shape[0]), torch.zeros(shape[0])
        return params

    def net(self, arch: Arch) -> Net:
        return build(self.space.ops(arch))

    def params(self, shared: Mapping[str, Tensor], arch: Arch) -> Params:
        """What `net(arch)` takes, as views; what `shared` has beside kernels and norms, as a head, stays as it is."""
        own = {f"{name}.{kind}" for name in self.shapes for kind in ("weight", *NORM)}
        others = {name: value for name, value in shared.items() if name not in own}
        return others | {name: shared[of][taken] for name, (of, taken) in self.slices(arch).items()}

    def slices(self, arch: Arch) -> dict[str, Part]:
        """Of each parameter of `net(arch)`, but for running statistics, where it stands in the shared ones."""
        found: dict[str, Part] = {}
        for i, (name, shape) in places(self.space, arch, self.per_kind).items():
            found[f"{i}.weight"] = f"{name}.weight", _taken(shape, self.shapes[name])
            found |= {f"{i}.{kind}": (f"{name}.{kind}", (slice(shape[0]),)) for kind in NORM}
        return found


def supernet(space: Space, *, per_kind: bool = True) -> Supernet:
    """The supernet of a space of stages.

    With `per_kind`, layers of different kinds share nothing with one another; else the convolutions at one place of a
    layer do, counted from its last, whatever its kind.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for kind in range(max(len(options) for _, options in space.slots)):
        for name, shape in places(space, _widest(space, kind), per_kind).values():
            known = shapes.get(name, shape)
            shapes[name] = tuple(map(max, zip(known, shape, strict=True)))
    return Supernet(space, per_kind, shapes)


def places(space: Space, arch: Arch, per_kind: bool) -> dict[int, tuple[str, tuple[int, ...]]]:
    """Position of each convolution of `arch` -> the name of its shared kernel, and the shape that it takes of it."""
    names = [
        f"{place}.{kind}.{left}" if per_kind else f"{place}.{left}"
        for place, kind in layers(space, arch)
        for left in reversed(range(_convolutions(kind)))
    ]
    convolutions = {i: op.weight_shape for i, op in enumerate(space.ops(arch)) if op.kind == "conv"}
    return {i: (name, shape) for (i, shape), name in zip(convolutions.items(), names, strict=True)}


@torch.no_grad()
def recalibrated(net: Net, params: Params, batches: Iterable[Tensor]) -> Params:
    """`params` with running statistics of these images, batches (n, C, H, W), in the place of what they had.

    Of each batch norm, the means over the batches of the mean and the unbiased variance of each: what running
    statistics are an exponential mean of. Shared weights have none that suit a network (Yu 2019, arXiv:1903.05134,
    section 3.1).
    """
    places = {
        f"stat.{i}.{kind}": params[f"{i}.beta"]
        for i, op in enumerate(net.ops)
        if op.kind == "conv"
        for kind in STATISTICS
    }
    total, count = {name: torch.zeros_like(like) for name, like in places.items()}, 0
    for x in batches:
        fresh = {name: torch.zeros_like(like) for name, like in places.items()}
        net.body({**params, **fresh}, x, train=True)  # leaves BN_MOMENTUM of the batch's own in them
        total, count = {name: value + fresh[name] for name, value in total.items()}, count + 1
    if not count:
        raise BadConfig("no batch to take statistics of; give one or more")
    return {**params, **{name: value / (count * BN_MOMENTUM) for name, value in total.items()}}


def _widest(space: Space, kind: int) -> Arch:
    """The most of everything that is a number; of other options the one at `kind`, or the last."""
    picks = [
        min(kind, len(options) - 1) if isinstance(options[0], str) else options.index(max(options))
        for _, options in space.slots
    ]
    return Arch(space.name, tuple(picks))


def _taken(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[slice, ...]:
    """Leading channels, the middle of the kernel."""
    lead = [slice(size) for size in shape[:2]]
    middle = [slice((most - size) // 2, (most + size) // 2) for size, most in zip(shape[2:], whole[2:], strict=True)]
    return (*lead, *middle)


@cache
def _convolutions(kind: str) -> int:
    tape = Tape((2, 4, 4))
    LAYERS[kind](tape, 2, 3, 1)
    return sum(op.kind == "conv" for op in tape.ops)
