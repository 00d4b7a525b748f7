"""The door for people with few examples: teach a trained learner classes, ask it, save what it has seen.

    taught = teach(learner, slow, {"cat": cats, "dog": dogs})
    names, probabilities = taught.predict(image)
    taught.save("pets.safetensors")

The same words as on a device (`export/python/edgemeta_device.py`), in torch, so learners that change the body can, too.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgemeta.contracts import Fast, Learner, Params, Support
from edgemeta.data.dataset import BYTE
from edgemeta.errors import BadConfig, BadData, Diverged, first_line
from edgemeta.files import write_bytes
from edgemeta.learners.inner import cross_entropy
from edgemeta.learners.outer import steps_of
from edgemeta.types import Shape, text_of

FORMAT = 1
CHUNK = 256  # images that go through the body at once
LOST = 10.0  # times the loss of guessing, or of the start
NOTE = "taught"  # where the file's metadata keeps names, scale and identity
Images = Any  # what `numpy.asarray` takes: (n, C, H, W), or (n, H, W) of one channel, or one image; uint8 or float


@dataclass(frozen=True, eq=False)
class Taught:
    """A learner and the examples it has learned from. Nothing is changed in place: `more` returns another."""

    learner: Learner = field(repr=False)
    slow: Params = field(repr=False)
    names: tuple[str, ...]  # of the classes, in the order they came
    x: Tensor = field(repr=False)  # (n, d) features, or (n, C, H, W) images, as the learner's `on_features` says
    labels: Tensor = field(repr=False)  # (n,) int64, positions in `names`
    scale: float | None = None  # what values are multiplied by; None: uint8 by 1/255, others by 1
    fast: Fast = field(default_factory=dict, repr=False)  # what was adapted

    @property
    def counts(self) -> dict[str, int]:
        """Examples of each class."""
        each = torch.bincount(self.labels, minlength=len(self.names)).tolist()
        return dict(zip(self.names, each, strict=True))

    @torch.no_grad()
    def more(self, examples: Mapping[str, Images]) -> Taught:
        """With more examples, of classes known or new; adapted from the start on all of them."""
        names, x, labels = list(self.names), [self.x], [self.labels]
        for name, own in _checked(examples).items():
            names += [] if name in names else [name]
            x.append(self._seen(own, f"class {name!r}"))
            labels.append(torch.full((len(x[-1]),), names.index(name)))
        return _adapted(replace(self, names=tuple(names), x=torch.cat(x), labels=torch.cat(labels)))

    def predict(self, images: Images) -> tuple[list[str], np.ndarray]:
        """The most probable class of each image, and its probability (n,). One image is a batch of one."""
        each = self.probabilities(images)
        return [self.names[i] for i in each.argmax(1)], each.max(1)

    @torch.no_grad()
    def probabilities(self, images: Images) -> np.ndarray:
        """(n, way) float32, columns in the order of `names`."""
        x = self._seen(images, "predict")
        together = len(x) if self.learner.transductive else CHUNK  # there, an answer depends on the others in the batch
        logits = torch.cat([self.learner.predict(self.slow, self.fast, part) for part in x.split(together)])
        if not _finite(logits):
            raise BadData(f"predict: {self.learner.name} gives no finite numbers; scale values as in training")
        return torch.softmax(logits, 1).numpy()

    def save(self, path: Path | str) -> Path:
        """Write the examples (features, or images if the learner changes the body), their names, and whose they are."""
        note = {"format": FORMAT, "names": self.names, "scale": self.scale, "learner": self.learner.name}
        note["identity"] = identity(self.learner, self.slow)
        data = save({"x": self.x.contiguous(), "labels": self.labels}, metadata={NOTE: json.dumps(note)})
        return write_bytes(path, data)

    def _seen(self, images: Images, what: str) -> Tensor:
        """What the learner's support and queries are: features (n, d), or images (n, C, H, W)."""
        learner = self.learner
        x = _pixels(images, learner.net.in_shape, self.scale, what)
        if not learner.on_features:
            return x
        z = torch.cat([learner.net.body(self.slow, part) for part in x.split(CHUNK)])
        if not _finite(z):
            raise BadData(
                f"{what}: the network overflows on values up to {x.abs().max():.2g}; scale them as in training"
            )
        return z


def teach(learner: Learner, slow: Params, examples: Mapping[str, Images], *, scale: float | None = None) -> Taught:
    """Learn classes from examples: name -> images (n, C, H, W) or (n, H, W), uint8 or float; n may differ by class.

    `slow` are the weights of a meta-training. `scale` is what values are multiplied by, if it is not 1/255 for uint8
    and 1 for others: the network must see what it saw in training.
    """
    slow = _weights(learner, slow)
    if scale is not None and not 0 < scale < math.inf:
        raise BadConfig(f"images cannot be scaled by {scale}; give a number above 0, or None for 1/255 of uint8")
    shape = (0, learner.net.dim) if learner.on_features else (0, *learner.net.in_shape)
    nothing = Taught(learner, slow, (), torch.zeros(shape), torch.zeros(0, dtype=torch.int64), scale and float(scale))
    return nothing.more(examples)


@torch.no_grad()
def load(path: Path | str, learner: Learner, slow: Params) -> Taught:
    """What `Taught.save` wrote, for the learner and the weights that it was taught with."""
    slow = _weights(learner, slow)
    try:
        with safe_open(str(path), framework="pt") as file:
            note = json.loads((file.metadata() or {})[NOTE])
            x, labels = file.get_tensor("x"), file.get_tensor("labels")
        made = Taught(learner, slow, tuple(note["names"]), x, labels, note["scale"])
        whose, own = (note["learner"], note["identity"]), (learner.name, identity(learner, slow))
        sound = note["format"] == FORMAT and _sound(made)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BadData(f"cannot read {path}: {error}; use a copy or teach again") from error
    if whose != own:
        other = "other weights or settings" if whose[0] == own[0] else repr(whose[0])
        raise BadData(
            f"{path} was taught to {other}, not to this {own[0]!r}; load what it was taught to or teach again"
        )
    if not sound:
        raise BadData(f"{path} is damaged: its examples, labels and names do not fit; use a copy or teach again")
    return _adapted(made)


def identity(learner: Learner, slow: Params) -> str:
    """SHA-256 of the learner, its network and every weight: features of another one mean nothing to this one.

    Settings that neither weights nor steps show, such as a constant rate, are not told apart.
    """
    found = hashlib.sha256(repr((learner.name, learner.steps, learner.transductive, learner.net.ops)).encode())
    for name in sorted(slow):
        value = slow[name].detach().cpu().contiguous()
        found.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def _adapted(taught: Taught) -> Taught:
    """`start`, then `step` as often as a device would; a step that diverges is not taken, and no other after it.

    A step diverges if its numbers are not finite, or its loss on the examples is `LOST` times that of the start.
    Where nothing was known before it, there is nothing worth keeping: `Diverged`.
    """
    if len(taught.names) < 2:
        raise BadData(f"the only class is {taught.names[0]!r}, and few-shot learning tells classes apart; add a second")
    learner, slow = taught.learner, taught.slow
    support = Support(taught.x, F.one_hot(taught.labels, len(taught.names)).float())
    fast, steps = learner.start(slow, support), steps_of(learner, len(support.x))
    logits = learner.predict(slow, fast, support.x)
    most = LOST * max(math.log(len(taught.names)), float(cross_entropy(logits, support.onehot)))
    for done in range(steps):
        new = learner.step(slow, fast, support)
        scores = learner.predict(slow, new, support.x)
        if not (_finite(*new.values()) and cross_entropy(scores, support.onehot) <= most):
            said = f"{learner.name} diverges at step {done + 1} of {steps}"
            if not _tells_apart(logits):
                raise Diverged(f"{said}, and knows nothing before it; {_advice(slow)}", fast)
            warnings.warn(f"{said}: what it knew before is kept; {_advice(slow)}", RuntimeWarning, stacklevel=4)
            break
        fast, logits = new, scores
    return replace(taught, fast=fast)


def _tells_apart(logits: Tensor) -> bool:
    """Whether finite logits (n, way) favour any class of any example."""
    return _finite(logits) and bool((logits.amax(1) - logits.amin(1)).max() > 1e-6)


def _advice(slow: Params) -> str:
    rates = {
        name.removesuffix(".log_lr"): value.exp().max() for name, value in slow.items() if name.endswith(".log_lr")
    }
    said = ", ".join(f"{name} {rate:.2g}" for name, rate in rates.items())
    return "give images like those of the training" + (f", or lower the inner rates ({said})" if said else "")


def _weights(learner: Learner, slow: Params) -> Params:
    """`slow` without gradients, if it is what the learner is made of."""
    for name, wanted in learner.init(rng=torch.Generator()).items():
        if name not in slow:
            raise BadConfig(f"the weights have no {name!r}, which {learner.name!r} needs; load those it was trained to")
        if slow[name].shape != wanted.shape:
            has, needs = (_by(value.shape) for value in (slow[name], wanted))
            raise BadConfig(
                f"weight {name!r} is {has}, this {learner.name!r} needs {needs}; build the net it was trained on"
            )
    return {name: value.detach() for name, value in slow.items()}


def _checked(examples: Mapping[str, Images]) -> Mapping[str, Images]:
    if not isinstance(examples, Mapping) or not examples:
        raise BadData('no examples; give images by class name, as in {"cat": cats, "dog": dogs}')
    for name in examples:
        if not isinstance(name, str) or not name:
            raise BadData(f"{name!r} is no name of a class; use a text that is not empty")
    return examples


def _pixels(images: Images, in_shape: Shape, scale: float | None, what: str) -> Tensor:
    """Images (n, C, H, W) as the network sees them: float32, scaled. `what` they are for stands in errors."""
    try:
        given = np.asarray(images)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadData(f"{what}: images are no array ({first_line(error)}); give one array of uint8 or float") from error
    if not given.size:
        raise BadData(f"{what} has no images; give at least one, {_by(in_shape)}")
    if given.dtype != np.uint8 and given.dtype.kind != "f":
        raise BadData(f"{what}: images are {given.dtype}; convert them to uint8 of 0 to 255, or to float")
    shaped = given.reshape(-1, *in_shape) if _fits(given.shape, in_shape) else None
    if shaped is None:
        raise BadData(
            f"{what}: images are {_by(given.shape)}, the network takes {_by(in_shape)}; resize or transpose them"
        )
    with np.errstate(over="ignore"):
        x = torch.from_numpy(shaped.astype(np.float32)) * (scale or (BYTE if given.dtype == np.uint8 else 1.0))
    bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise BadData(f"{what}: {len(bad)} images hold NaN or infinity, first number {bad[0]}; remove or repair them")
    return x


def _fits(shape: tuple[int, ...], in_shape: Shape) -> bool:
    """One image or several, the channel left out where there is one."""
    plain = in_shape[1:] if in_shape[0] == 1 else in_shape
    return any(shape[-len(own) :] == own and len(shape) - len(own) in (0, 1) for own in (in_shape, plain))


def _sound(taught: Taught) -> bool:
    """Whether what was read could have been written."""
    shape = (taught.learner.net.dim,) if taught.learner.on_features else taught.learner.net.in_shape
    named = all(isinstance(name, str) and name for name in taught.names) and len(set(taught.names)) == len(taught.names)
    typed = taught.x.dtype == torch.float32 and taught.labels.dtype == torch.int64 and taught.labels.dim() == 1
    fitting = taught.x.shape == (len(taught.labels), *shape) and _finite(taught.x)
    scaled = taught.scale is None or (isinstance(taught.scale, float) and math.isfinite(taught.scale))
    return named and typed and fitting and scaled and set(taught.labels.tolist()) == set(range(len(taught.names)))


def _finite(*values: Tensor) -> bool:
    return all(bool(value.isfinite().all()) for value in values)


def _by(shape: tuple[int, ...]) -> str:
    return text_of(shape) or "one number"
