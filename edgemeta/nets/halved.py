"""A network that computes in bfloat16 while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgemeta.contracts import Net


def in_bfloat16(net: Net) -> Net:
    """The network with convolutions and products in bfloat16 (torch's autocast, as the input's device does it).

    Parameters, their gradients, running statistics and features stay float32, and so does every learner's own
    arithmetic: distances and losses lose nothing. bfloat16 has the exponents of float32, so no loss is scaled.
    """
    return net._replace(body=_autocast(net.body), products=_autocast(net.products), precision="bf16")


def _autocast(body: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def halved(params: dict[str, Tensor], x: Tensor, *rest: Any, **settings: Any) -> Tensor:
        # Without the cache of casts: it would carry tensors of one functional transform over to another.
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return body(params, x, *rest, **settings).float()

    return halved


PRECISIONS: dict[str, Callable[[Net], Net]] = {"fp32": lambda net: net, "bf16": in_bfloat16}
