"""Small nets, parameters and tasks in float64: for derivatives that must agree to the last digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgemeta.contracts import Learner, Net, Params
from edgemeta.learners.outer import Tasks, meta_gradient
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny

DOUBLE = {"dtype": torch.float64}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net() -> Net:
    """A plain convolution with a pool, then a strided depthwise one and a pointwise: 9x7 images, 4 features."""
    space = tiny((1, 9, 7))
    return build(space.ops(space.arch([{"down": "pool"}, {"kind": "sep", "down": "stride"}])))


def parameters(learner: Learner, *, seed: int = 0, size: float = 0.1) -> Params:
    """Float64 parameters, all moved from their first values, the trained ones requiring a gradient."""
    rng, slow = seeded(seed), {}
    for name, value in learner.init(rng=rng).items():
        noise = torch.rand(value.shape, generator=rng, **DOUBLE)
        slow[name] = value.double() + (noise if name.endswith(".var") else size * (2 * noise - 1))
    return {name: value if name.startswith("stat.") else value.requires_grad_() for name, value in slow.items()}


def copied(slow: Params) -> Params:
    """With running statistics of its own, which an update changes in place."""
    return {name: value.clone() if name.startswith("stat.") else value for name, value in slow.items()}


def tasks_of(net: Net, count: int, *, way: int = 3, shot: int = 2, query: int = 2, seed: int = 1) -> Tasks:
    """Noise with a little of each class's own picture in it; queries are in no order."""
    rng = seeded(seed)
    pictures = torch.rand((count, way, *net.in_shape), generator=rng, **DOUBLE)
    y = torch.arange(way).repeat_interleave(shot)
    query_y = torch.stack([torch.randperm(way * query, generator=rng) % way for _ in range(count)])

    def images(labels: Tensor) -> Tensor:
        own = pictures[torch.arange(count)[:, None], labels]
        return 0.6 * own + 0.4 * torch.rand(own.shape, generator=rng, **DOUBLE)

    onehot = torch.eye(way, **DOUBLE)[y].expand(count, -1, -1)
    return Tasks(images(y.expand(count, -1)), onehot, images(query_y), query_y)


def close(got: Mapping[str, Tensor], want: Mapping[str, Tensor], digits: float = 1e-10) -> None:
    """Equal to `digits` of each tensor's largest value."""
    assert set(got) == set(want)
    for name, value in want.items():
        difference = (got[name] - value).abs().max().item()
        assert got[name].shape == value.shape and difference <= digits * max(value.abs().max().item(), 1e-3), name


def by_loops(net: Net, slow: Params, tasks: Tasks, logits: Callable[..., Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradient of a learner on features, task by task; `logits` of (slow, z, labels, query z).

    The features of an update's images are normalised together, as `meta_gradient` says.
    """
    n = tasks.x.shape[0] * tasks.x.shape[1]
    z = net.body(copied(slow), torch.cat([tasks.x.flatten(0, 1), tasks.query_x.flatten(0, 1)]), train=True)
    supports, queries = z[:n].view(*tasks.x.shape[:2], -1), z[n:].view(*tasks.query_x.shape[:2], -1)
    losses = [
        torch.nn.functional.cross_entropy(logits(slow, support, onehot.argmax(1), query), y)
        for support, onehot, query, y in zip(supports, tasks.onehot, queries, tasks.query_y, strict=True)
    ]
    loss, leaves = sum(losses) / len(losses), {key: value for key, value in slow.items() if value.requires_grad}
    found = torch.autograd.grad(loss, list(leaves.values()))
    return loss.detach(), dict(zip(leaves, found, strict=True))


def compare(learner: Learner, logits: Callable[..., Tensor], *, count: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """That the learner's meta-gradient is the one of loops over `logits`, to 1e-10."""
    slow, tasks = parameters(learner, seed=seed), tasks_of(learner.net, count, seed=seed + 1)
    loss, gradient = by_loops(learner.net, slow, tasks, logits)
    found = meta_gradient(learner, copied(slow), tasks)
    close({"loss": found.loss}, {"loss": loss})
    close(found.gradient, gradient)
    return gradient


def layer_normal(z: Tensor) -> Tensor:
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def torchs_cell(slow: Params, name: str) -> torch.nn.LSTMCell:
    """Torch's own cell with a learner's weights, gradients reaching them."""
    inputs, size = slow[f"{name}.input"].shape[0], slow[f"{name}.hidden"].shape[0]
    cell = torch.nn.LSTMCell(inputs, size, dtype=torch.float64)
    del cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
    cell.weight_ih, cell.weight_hh = slow[f"{name}.input"].T, slow[f"{name}.hidden"].T
    cell.bias_ih, cell.bias_hh = slow[f"{name}.bias"], torch.zeros(4 * size, **DOUBLE)
    return cell
