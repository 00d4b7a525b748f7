"""Few-shot learners, each four pure functions, and the registry that the CLI, the tests and the docs read."""

from collections.abc import Callable

from edgemeta.contracts import Learner
from edgemeta.learners.anil import anil
from edgemeta.learners.protonet import protonet

LEARNERS: dict[str, Callable[..., Learner]] = {
    "protonet": protonet,
    "anil": anil,
}
