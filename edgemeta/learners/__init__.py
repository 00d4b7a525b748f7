"""Few-shot learners, each four pure functions, and the registry that the CLI, the tests and the docs read."""

from collections.abc import Callable

from edgemeta.contracts import Learner
from edgemeta.learners.anil import anil
from edgemeta.learners.protonet import protonet
from edgemeta.learners.train import Training

LEARNERS: dict[str, Callable[..., Learner]] = {
    "protonet": protonet,
    "anil": anil,
}

TRAINING: dict[str, Training] = {
    "anil": Training(most_shots=4),
}


def training_of(learner: str) -> Training:
    """How a learner is meta-trained, where it is not the common way."""
    return TRAINING.get(learner, Training())
