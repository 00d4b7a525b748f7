"""A small student that imitates a large meta-trained learner: its answers on episodes, and what looks alike to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemeta.contracts import Learner, Net, Params, Support
from edgemeta.data.episode import Pool
from edgemeta.errors import BadConfig
from edgemeta.learners.outer import Meta, Tasks, asked, gradients
from edgemeta.learners.settings import Training
from edgemeta.learners.train import Judge, adapt, train

REMEMBERED = 200_000  # images whose features are kept; with 128 features each they take 100 MiB
View = Callable[[Tasks], "Seen"]


@dataclass(frozen=True)
class Imitation:
    """What a student is taught beside its own few-shot loss, and how much of it."""

    answers: float = 1.0  # weight of the teacher's class probabilities
    soften: float = 4.0  # what logits are divided by before probabilities are compared
    relations: float = 1.0  # weight of the distances between features

    def __post_init__(self) -> None:
        if self.soften <= 0 or min(self.answers, self.relations) < 0:
            raise BadConfig(f"no imitation is {self}; soften is above 0, weights are 0 or more")


class Seen(NamedTuple):
    """A teacher's view of tasks."""

    z: Tensor  # (images, d) its features of `Tasks.images`
    logits: Tensor  # (tasks, q, way) its answers to the queries


def distil(
    student: Learner,
    slow: Params,
    teacher: Learner,
    teacher_slow: Params,
    pools: Pool | Sequence[Pool],
    settings: Training,
    *,
    rng: np.random.Generator,
    imitation: Imitation | None = None,
    tick: Callable[[int], None] = lambda n: None,
    judge: Judge | None = None,
    device: str = "cpu",
) -> Params:
    """Meta-train the student's `slow` under a teacher and return new parameters; no argument is touched.

    See `imitating` for the loss and `learners.train.train` for the rest. Learners and networks of the two may differ in
    everything but the images they take. A warm-up, where `settings` have one, is without the teacher.
    """
    if settings.frozen:
        raise BadConfig(f"frozen = {settings.frozen} keeps the body that is to imitate; set it to 0")
    learner = imitating(student, teacher, teacher_slow, imitation or Imitation())
    return train(learner, slow, pools, settings, rng=rng, tick=tick, judge=judge, device=device)


def imitating(student: Learner, teacher: Learner, teacher_slow: Params, imitation: Imitation) -> Learner:
    """The student with another outer loss: L = cross-entropy + answers * A + relations * R, mean over tasks.

    A = T^2 KL(teacher's query probabilities || student's), both softened by T (Hinton 2015, arXiv:1503.02531, section
    2). R is the distance-wise loss of relational distillation between the features of a batch's images (Park 2019,
    arXiv:1904.05068, eq. 5 and 6). The teacher adapts to each task as it would on a device, with its own running
    statistics.

    Departures: the answers are those of two adapted few-shot learners, not of classifiers with fixed classes; angles
    (eq. 7 and 8) are left out, for learners compare distances; of a multi-step loss the last alone counts; Reptile is
    taught by the gradient through its steps, of first order.
    """
    if tuple(student.net.in_shape) != tuple(teacher.net.in_shape):
        shapes = ("x".join(map(str, net.in_shape)) for net in (student.net, teacher.net))
        raise BadConfig("a student of {} images cannot imitate a teacher of {} images; build one anew".format(*shapes))
    view = _looking(teacher, {name: value.detach() for name, value in teacher_slow.items()})
    name = f"{student.name} after {teacher.name}"
    return student._replace(name=name, outer=partial(_outer, student, view, imitation))


def softened(logits: Tensor, wanted: Tensor, by: float) -> Tensor:
    """T^2 KL(softmax(wanted / T) || softmax(logits / T)), mean over rows. T = `by`; logits, wanted (n, way)."""
    inputs, target = ((value / by).log_softmax(1) for value in (logits, wanted))
    return by**2 * F.kl_div(inputs, target, reduction="batchmean", log_target=True)


def relations(z: Tensor, wanted: Tensor) -> Tensor:
    """How far the pairwise distances of z (n, d) are from those of `wanted` (n, e), each in units of their mean.

    Source: Park 2019, eq. 4 to 6 (Huber of 1).
    """
    own, other = (distances / distances.mean() for distances in (F.pdist(z), F.pdist(wanted)))
    return F.huber_loss(own, other)


def _outer(
    student: Learner, view: View, imitation: Imitation, slow: Params, tasks: Tasks, weights: Sequence[float] = (1.0,)
) -> Meta:
    """The student's own loss, and the gradient of all; running statistics in `slow` are updated in place."""
    seen, x, query = view(tasks), tasks.x, tasks.query_x
    if student.on_features:
        z = student.net.body(slow, tasks.images, train=True)
        x, query = _dealt(z, tasks)
    else:  # running statistics follow the supports, as in the student's own training
        with torch.no_grad():
            student.net.body(slow, x.flatten(0, 1), train=True)
        z = student.net.body(slow, tasks.images)
    own, taught = torch.zeros(()), imitation.relations * relations(z, seen.z)
    for t in range(len(x)):
        logits = student.predict(slow, adapt(student, slow, Support(x[t], tasks.onehot[t])), query[t])
        own = own + F.cross_entropy(logits, tasks.query_y[t]) / len(x)
        taught = taught + imitation.answers * softened(logits, seen.logits[t], imitation.soften) / len(x)
    return Meta(own.detach(), gradients(own + taught, asked(slow)))


def _dealt(z: Tensor, tasks: Tasks) -> tuple[Tensor, Tensor]:
    """Features of `Tasks.images` as those of supports (tasks, n, d) and of queries (tasks, q, d)."""
    n = tasks.x.shape[0] * tasks.x.shape[1]
    return z[:n].unflatten(0, tasks.x.shape[:2]), z[n:].unflatten(0, tasks.query_x.shape[:2])


def _looking(teacher: Learner, slow: Params) -> View:
    features = _remembering(teacher.net)

    def view(tasks: Tasks) -> Seen:
        own = {name: value.to(tasks.x.device) for name, value in slow.items()}
        with torch.no_grad():
            z = features(own, tasks.images)
            x, query = _dealt(z, tasks) if teacher.on_features else (tasks.x, tasks.query_x)
            fasts = [adapt(teacher, own, Support(x[t], tasks.onehot[t])) for t in range(len(x))]
            logits = [teacher.predict(own, fast, query[t]) for t, fast in enumerate(fasts)]
        return Seen(z, torch.stack(logits))

    return view


def _remembering(net: Net) -> Callable[[Params, Tensor], Tensor]:
    """The body of a network whose parameters stay: it looks at an image once, for tasks draw each again and again."""
    known: dict[bytes, Tensor] = {}

    def features(own: Params, images: Tensor) -> Tensor:
        if images.device.type != "cpu":  # where a look costs less than a comparison
            return net.body(own, images)
        keys = [blake2b(image, digest_size=16).digest() for image in images.contiguous().numpy()]
        new = [i for i, key in enumerate(keys) if key not in known]
        found = dict(zip([keys[i] for i in new], net.body(own, images[new]), strict=True)) if new else {}
        z = torch.stack([found[key] if key in found else known[key] for key in keys])
        if len(known) + len(found) <= REMEMBERED:
            known.update((key, value.clone()) for key, value in found.items())
        return z

    return features
