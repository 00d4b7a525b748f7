"""A network in bfloat16: nearly the gradients of float32, for every learner, and training that learns."""

import pytest
import torch

from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import Meta, meta_gradient, trained
from edgemeta.learners.settings import Training
from edgemeta.nets.halved import PRECISIONS, in_bfloat16
from tests.crews import same, small_net, start_of, trained_on
from tests.learners.test_shards import drawn_tasks

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]
SETTINGS = Training(60, way=4, query=2, tasks=2, shards=2, warmup=0.2, lr=0.01)


def gradient_of(learner, device: str) -> tuple[Meta, torch.Tensor]:
    slow = {name: value.to(device) for name, value in start_of(learner).items()}
    for value in trained(slow).values():
        value.requires_grad_()
    tasks = drawn_tasks()
    meta = meta_gradient(learner, slow, type(tasks)(*(field.to(device) for field in tasks)))
    assert all(value.dtype == torch.float32 for value in [*slow.values(), *meta.gradient.values()])
    return meta, torch.cat([value.flatten() for value in meta.gradient.values()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LEARNERS)
def test_gradients_are_nearly_those_of_float32_and_as_long(name, device):
    """bfloat16 has eight bits: a half per cent of each number, which is noise to a gradient's direction."""
    (whole, wanted), (half, found) = (
        gradient_of(LEARNERS[name](make(small_net())), device) for make in PRECISIONS.values()
    )
    assert float(half.loss) == pytest.approx(float(whole.loss), rel=0.05)
    assert not torch.equal(found, wanted) and torch.cosine_similarity(found, wanted, 0) > 0.97
    assert float(found.norm()) == pytest.approx(float(wanted.norm()), rel=0.1)


def loss_of(learner, slow) -> float:
    """On sixteen tasks, the same each time."""
    own = {name: value.clone() for name, value in slow.items()}
    for value in trained(own).values():
        value.requires_grad_()
    return float(meta_gradient(learner, own, drawn_tasks(16)).loss)


@pytest.mark.parametrize("device", DEVICES)
def test_training_lowers_the_loss_and_weights_stay_float32(device):
    learner = LEARNERS["protonet"](in_bfloat16(small_net()))
    found = trained_on(learner, SETTINGS, device=device)
    assert loss_of(learner, found) < 0.8 * loss_of(learner, start_of(learner))
    assert all(value.dtype == torch.float32 for value in found.values())
    plain = LEARNERS["protonet"](small_net())
    assert loss_of(plain, found) == pytest.approx(loss_of(learner, found), rel=0.1)


def test_it_is_another_training_than_that_in_float32(tmp_path):
    """A checkpoint of the one is of no use to the other."""
    path, ends = tmp_path / "c", []
    for make in PRECISIONS.values():
        learner, ticks = LEARNERS["protonet"](make(small_net())), []
        ends.append(trained_on(learner, Training(6, way=4, check_every=2), keep=path, tick=ticks.append))
        assert ticks[0] == 1
    assert not same(*ends)
