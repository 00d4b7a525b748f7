"""A student under a teacher: the two losses, what stays as it was, and that imitation is what is learned."""

import numpy as np
import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.data.episode import draw
from edgemeta.errors import BadConfig
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import Tasks, meta_gradient, trained
from edgemeta.learners.settings import Training
from edgemeta.learners.shards import gather
from edgemeta.learners.train import adapt, train
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.tasks.distil import Imitation, distil, imitating, relations, softened
from tests.blobs import blob_pool

SETTINGS = Training(60, way=10, query=3)


def net(width: int, in_shape=(1, 12, 12)):
    space = tiny(in_shape)
    return build(space.ops(space.arch([{"width": width}, {"width": width}])))


@pytest.fixture(scope="module")
def pool():
    return blob_pool(classes=20, seed=0)


@pytest.fixture(scope="module")
def taught(pool):
    """A teacher and its parameters."""
    teacher = LEARNERS["protonet"](net(8))
    slow = teacher.init(rng=torch.Generator().manual_seed(0))
    return teacher, train(teacher, slow, pool, Training(80, way=15, query=3), rng=np.random.default_rng(0))


def fresh(learner, seed: int = 1):
    return learner.init(rng=torch.Generator().manual_seed(seed))


def doubled(slow):
    return {key: value.double() for key, value in slow.items()}


def answers(learner, slow, pool, seed: int = 0):
    """Class probabilities of the queries of a few tasks."""
    found = []
    for i in range(20):
        chosen = draw(pool, 5, 1, 4, rng=np.random.default_rng([seed, i]))
        x, query = (pool.images(part.ravel()) for part in (chosen.support, chosen.query))
        if learner.on_features:
            x, query = (learner.net.body(slow, images) for images in (x, query))
        fast = adapt(learner, slow, Support(x, torch.eye(5)))
        found.append(learner.predict(slow, fast, query).detach().softmax(1))
    return torch.cat(found)


def test_softened_is_the_divergence_times_the_square():
    logits, wanted = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    p, q = torch.tensor([1.0, np.e**2]), torch.tensor([np.e, 1.0])
    p, q = p / p.sum(), q / q.sum()
    torch.testing.assert_close(softened(logits, wanted, 2.0), (4 * (p * (p / q).log()).sum()).float())
    assert softened(wanted, wanted, 2.0) == 0
    two = softened(logits.repeat(2, 1), wanted.repeat(2, 1), 2.0)  # a mean over queries, not a sum
    torch.testing.assert_close(two, softened(logits, wanted, 2.0))


def test_relations_know_shape_but_neither_size_nor_place():
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    turned = torch.tensor([[5.0, 1.0, 0.0], [5.0, 7.0, 0.0], [-3.0, 1.0, 0.0]])
    assert relations(triangle, turned).item() == pytest.approx(0, abs=1e-6)
    line = torch.tensor([[0.0], [1.0], [2.0]])  # distances 1, 2, 1 of mean 4/3; the triangle's 3, 4, 5 of mean 4
    wanted = ((0.75 - 0.75) ** 2 + (1.5 - 1.0) ** 2 + (0.75 - 1.25) ** 2) / 2 / 3
    assert relations(line, triangle).item() == pytest.approx(wanted, abs=1e-6)


def test_features_that_are_all_alike_give_finite_slopes():
    z = torch.ones(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(relations(z, torch.rand(4, 2)), z)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", ["protonet", "anil", "maml"])
def test_without_imitation_it_is_the_students_own_training(pool, taught, name):
    """In float64: the student's own way to its gradient is another one, with batched products."""
    student, (teacher, teacher_slow) = LEARNERS[name](net(4)), taught
    alone = imitating(student, teacher, doubled(teacher_slow), Imitation(answers=0.0, relations=0.0))
    drawn = [(0, draw(pool, 5, 1, 2, rng=np.random.default_rng(i))) for i in range(2)]
    tasks = Tasks(*(field.double() if field.is_floating_point() else field for field in gather([pool], drawn)))
    own, other = doubled(fresh(student)), doubled(fresh(student))
    for value in [*trained(own).values(), *trained(other).values()]:
        value.requires_grad_()
    wanted, found = meta_gradient(student, own, tasks), meta_gradient(alone, other, tasks)
    torch.testing.assert_close(found.loss.double(), wanted.loss.double(), rtol=1e-6, atol=1e-6)
    for key, value in wanted.gradient.items():
        torch.testing.assert_close(found.gradient[key], value, rtol=1e-6, atol=1e-8)
    for key in (key for key in own if key.startswith("stat.")):
        torch.testing.assert_close(other[key], own[key])


def test_a_student_comes_to_answer_like_its_teacher():
    pool, unseen = blob_pool(classes=40, seed=0), blob_pool(classes=10, seed=1)
    teacher, student, settings = LEARNERS["protonet"](net(8)), LEARNERS["protonet"](net(4)), Training(100, 15, query=3)
    large = train(teacher, fresh(teacher, 0), pool, settings, rng=np.random.default_rng(0))
    alone = train(student, fresh(student, 0), pool, settings, rng=np.random.default_rng(0))
    under = distil(student, fresh(student, 0), teacher, large, pool, settings, rng=np.random.default_rng(0))
    wanted, *found = (answers(of, slow, unseen) for of, slow in ((teacher, large), (student, alone), (student, under)))
    far = [softened(own.log(), wanted.log(), Imitation().soften).item() for own in found]
    same = [(own.argmax(1) == wanted.argmax(1)).float().mean().item() for own in found]
    assert far[1] < 0.8 * far[0] and same[1] > same[0] + 0.05


@pytest.mark.parametrize("name", ["ridge", "maml-norm"])
def test_teachers_of_any_kind_are_imitated_and_left_alone(pool, name):
    teacher = LEARNERS[name](net(8))
    slow, student = fresh(teacher, 3), LEARNERS["protonet"](net(4))
    kept, start = {key: value.clone() for key, value in slow.items()}, fresh(student)
    few = Training(3, way=4, tasks=2)
    found = distil(student, start, teacher, slow, [pool, pool], few, rng=np.random.default_rng(0))
    again = distil(student, start, teacher, slow, [pool, pool], few, rng=np.random.default_rng(0))
    assert all(torch.equal(kept[key], slow[key]) and not slow[key].requires_grad for key in slow)
    assert set(found) == set(start) and all(torch.equal(found[key], again[key]) for key in found)
    assert not torch.equal(found["0.weight"], start["0.weight"])


def test_the_teacher_looks_at_an_image_once(pool, taught):
    teacher, slow = taught
    looked: list[int] = []

    def body(params, x, train=False):
        looked.append(len(x))
        return teacher.net.body(params, x, train)

    watched = teacher._replace(net=teacher.net._replace(body=body))
    student = LEARNERS["protonet"](net(4))
    distil(student, fresh(student), watched, slow, pool, SETTINGS, rng=np.random.default_rng(0))
    assert 150 < sum(looked) <= len(pool.x) < 60 * 40


def test_what_makes_no_sense_is_refused(pool, taught):
    with pytest.raises(BadConfig, match="soften is above 0"):
        Imitation(soften=0.0)
    few, small = Training(2, warmup=0.5, frozen=3), LEARNERS["protonet"](net(4))
    with pytest.raises(BadConfig, match="frozen = 3 keeps the body"):
        distil(small, fresh(small), *taught, pool, few, rng=np.random.default_rng(0))
    student = LEARNERS["protonet"](net(4, (1, 16, 16)))
    with pytest.raises(BadConfig, match="1x16x16 images cannot imitate a teacher of 1x12x12"):
        imitating(student, *taught, Imitation())
