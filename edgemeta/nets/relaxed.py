"""The continuous relaxation of a cell space: one network of all candidates, each weighed by a softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Net, Params
from edgemeta.errors import BadConfig
from edgemeta.nets.build import BN_MOMENTUM, WITHOUT_WEIGHTS, build, channels_last
from edgemeta.nets.candidates import SKIP, Kind, Use, by_target, kind_of
from edgemeta.nets.matmul import BN_EPS
from edgemeta.space.ops import Tape
from edgemeta.space.space import Space
from edgemeta.types import Arch, Op

Alpha = dict[str, Tensor]  # cell -> (edges, operators) logits
START = 1e-3  # standard deviation of fresh logits (Liu 2019, released code)


@dataclass(frozen=True)
class Relaxed:
    """A functional network; `weighed` has the additions of a cell's nodes and what weighs their inputs.

    An addition's first input is a candidate. Its second one is, too, where it has a weight of its own, else the sum so
    far.
    """

    space: Space
    kind: Kind
    ops: tuple[Op, ...]
    weighed: Mapping[int, tuple[Use, Use | None]]

    @property
    def dim(self) -> int:
        return math.prod(self.ops[-1].out_shape)

    def init(self, *, rng: torch.Generator) -> Params:
        """Kernels "<operator>.weight"; batch norm has no scale and shift, as in the paper's search."""
        fresh = build(self.ops).init(rng=rng)
        return {name: value for name, value in fresh.items() if name.endswith(".weight")}

    def alpha(self, *, rng: torch.Generator, spread: float = START) -> Alpha:
        """Fresh logits; those with a spread of 1 make every architecture that can be derived as likely as others."""
        shape = len(self.kind.edges), len(self.kind.operators)
        return {cell: spread * torch.randn(shape, generator=rng) for cell in self.kind.cells}

    def body(self, params: Params, alpha: Alpha, x: Tensor, train: bool = False) -> Tensor:
        """x (n, C, H, W) -> z (n, dim), every batch normalised by its own statistics, `train` or not.

        Source: Liu 2019, arXiv:1806.09055, eq. 2.
        """
        weight = self._weights(alpha)
        values = [channels_last(x)]
        for i, op in enumerate(self.ops):
            inputs = [values[j + 1] for j in op.inputs]
            if i in self.weighed:
                first, second = self.weighed[i]
                rest = inputs[1] if second is None else weight[second] * inputs[1]
                values.append(torch.addcmul(rest, weight[first], inputs[0]))
            elif op.kind == "conv":
                values.append(_conv(op, params[f"{i}.weight"], inputs[0]))
            else:
                values.append(WITHOUT_WEIGHTS[op.kind](op, *inputs))
        return values[-1].flatten(1)

    def net(self, alpha: Alpha) -> Net:
        """The network that these logits make, as learners take one."""

        def body(params: Params, x: Tensor, train: bool = False) -> Tensor:
            return self.body(params, alpha, x)

        return Net(self.ops, self.space.in_shape, self.dim, self.init, body, body)

    def _weights(self, alpha: Alpha) -> dict[Use, Tensor]:
        """() of each operator on each edge; those of an edge sum to one, none included."""
        found = {}
        for cell, logits in alpha.items():
            rows, columns = logits.shape
            flat = iter(torch.softmax(logits, 1).flatten().unbind())
            found.update({(cell, row, column): next(flat) for row in range(rows) for column in range(columns)})
        return found

    def derive(self, alpha: Alpha) -> Arch:
        """The strongest architecture.

        Of every edge the strongest operator, and where a node keeps two edges, those whose operators are the strongest
        (Liu 2019, section 2.4).
        """
        kind, picks = self.kind, list[int]()
        for cell in kind.cells:
            best, which = torch.softmax(alpha[cell].detach(), 1)[:, kind.strong].max(1)
            operator = [kind.strong[j] for j in which.tolist()]
            if kind.inputs is None:
                picks += operator
                continue
            for rows in by_target(kind.edges):
                kept = sorted(sorted(rows, key=lambda row: -float(best[row]))[: kind.inputs])
                picks += [pick for row in kept for pick in (kind.edges[row][0], operator[row])]
        return Arch(self.space.name, tuple(picks))

    def canonical(self, arch: Arch) -> Arch:
        """The same network with the inputs of every node in order."""
        if self.kind.inputs is None:
            return arch
        pairs = list(zip(arch.picks[::2], arch.picks[1::2], strict=True))
        nodes = [sorted(pairs[at : at + self.kind.inputs]) for at in range(0, len(pairs), self.kind.inputs)]
        return Arch(arch.space, tuple(pick for node in nodes for pair in node for pick in pair))

    def uses(self, arch: Arch) -> tuple[Use, ...]:
        """The operators of `arch` and where they stand, in the order of its picks."""
        kind, share = self.kind, len(arch.picks) // len(self.kind.cells)
        found: list[Use] = []
        for number, cell in enumerate(kind.cells):
            picks = arch.picks[number * share : (number + 1) * share]
            if kind.inputs is None:
                found += [(cell, row, pick) for row, pick in enumerate(picks)]
                continue
            targets = [edge[1] for edge in kind.edges]
            for place, (source, pick) in enumerate(zip(picks[::2], picks[1::2], strict=True)):
                target = min(targets) + place // kind.inputs
                found.append((cell, kind.edges.index((source, target)), pick))
        return tuple(found)


def relax(
    space: Space, *, width: int | None = None, depth: int | None = None, stride: int | None = None, none: bool = False
) -> Relaxed:
    """The relaxation of the spaces `darts` and `nb201`, laid by the walks of their own cells.

    `width` is the channels of a first cell, `depth` the number of cells of `darts`, and of each of the three stages of
    `nb201`, `stride` that of the stem. All are small, so that an update takes a fraction of a second: an architecture
    is derived for the full space, as in the paper, where cells found in 8 are stacked 20 times. Departures, for what
    comes out to be the space's networks: ReLU stands behind a convolution and its batch norm, pools have no batch norm.

    Without `none` no edge is derived that brings nothing: its logit tells only how loud the others are, which the next
    normalisation takes away (Liu 2019, section 2.4), and it grows all the same. That holds for `nb201`, too.
    """
    kind = replace(kind_of(space), none=none)
    if min(width or 1, (depth or kind.depth) - kind.least_depth + 1) < 1:
        raise BadConfig(f"no relaxation has width {width} and depth {depth}; give 1 and {kind.least_depth} or more")
    tape = Tape(space.in_shape)
    weighed = kind.lay(kind, tape, width or kind.width, depth or kind.depth, stride or kind.stride)
    if tape.shape(tape.last)[1:] != (1, 1):
        tape.gap()
    return Relaxed(space, kind, tape.ops, weighed)


def skips(space: Space, arch: Arch) -> dict[str, int]:
    """Skip-connections in each cell of `arch`: where there are many, a search by gradients has collapsed.

    Source: Liang 2019, arXiv:1909.06035, section 3.
    """
    names = kind_of(space).cells
    share = len(arch.picks) // len(names)
    chosen = [options[pick] == SKIP for (_, options), pick in zip(space.slots, arch.picks, strict=True)]
    return {cell: sum(chosen[at * share : (at + 1) * share]) for at, cell in enumerate(names)}


def _conv(op: Op, weight: Tensor, x: Tensor) -> Tensor:
    y = F.conv2d(x, weight, None, op.steps, op.pads, op.dilation, op.groups)
    y = F.batch_norm(y, None, None, None, None, True, BN_MOMENTUM, BN_EPS)
    return F.relu(y, inplace=True) if op.act == "relu" else y
