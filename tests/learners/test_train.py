"""The training loop's own promises; what it teaches is in test_contract.py."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from edgemeta.errors import BadData, Diverged
from edgemeta.learners import LEARNERS
from edgemeta.learners.outer import Meta, trained
from edgemeta.learners.settings import Training
from edgemeta.learners.train import BAD_UPDATES, support_of
from edgemeta.types import Episode
from tests.blobs import blob_pool
from tests.crews import POOL, crew, same, start_of, trained_on


@pytest.fixture
def protonet():
    return crew("protonet")[1]


@pytest.fixture
def maml():
    return crew("maml")[1]


# what comes out


def test_the_start_is_not_touched_and_the_result_needs_no_gradient(protonet):
    start = start_of(protonet)
    kept = {name: value.clone() for name, value in start.items()}
    moved = trained_on(protonet, Training(3, way=4), start=start)
    assert same(kept, start) and moved.keys() == start.keys()
    assert not any(value.requires_grad for value in moved.values())
    assert all(not torch.equal(moved[name], start[name]) for name in ("0.weight", "stat.0.mean", "stat.0.var"))


def test_tick_counts_every_episode(protonet):
    for settings, wanted in ((Training(4, way=4), [1, 2, 3, 4]), (Training(6, way=4, tasks=4), [4, 6])):
        ticks: list[int] = []
        trained_on(protonet, settings, tick=ticks.append)
        assert ticks == wanted


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_the_stream_decides(name):
    learner, settings = crew(name)[1], Training(6, way=4, query=2, tasks=2, warmup=0.3)
    assert same(trained_on(learner, settings), trained_on(learner, settings))
    assert not same(trained_on(learner, settings), trained_on(learner, settings, seed=1))


# schedules


def pushed(learner, gradient: float = 1.0):
    """A learner whose meta-gradient is the same everywhere, so that Adam moves every number by its rate."""

    def outer(slow, tasks, weights):
        return Meta(
            torch.tensor(0.5), {name: torch.full_like(value, gradient) for name, value in trained(slow).items()}
        )

    return learner._replace(outer=outer)


def test_the_rate_falls_along_a_cosine(protonet, tmp_path):
    """A constant gradient makes each step of Adam as long as its rate."""
    moved, path = [start_of(protonet)["0.beta"]], tmp_path / "c"
    settings = Training(8, way=4, lr=0.01, check_every=1)

    def tick(done):
        if done > 1:
            moved.append(load_file(path)["slow/0.beta"])

    last = trained_on(pushed(protonet), settings, keep=path, tick=tick)
    steps = [float((one - two).mean()) for one, two in zip(moved, [*moved[1:], last["0.beta"]], strict=True)]
    assert steps == pytest.approx([0.01 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)], rel=1e-4)


@pytest.mark.parametrize(("gradient", "norm"), [(1e3, 2.0), (1e-6, None)])
def test_gradients_are_clipped_to_their_norm(protonet, tmp_path, gradient, norm):
    """Adam's first moment is a tenth of the first gradient."""
    path = tmp_path / "c"
    trained_on(pushed(protonet, gradient), Training(1, way=4, clip=2.0, check_every=1), keep=path)
    moments = [10 * value for name, value in load_file(path).items() if name.startswith("momentum/")]
    found = math.sqrt(sum(float(value.square().sum()) for value in moments))
    assert found == pytest.approx(norm or gradient * math.sqrt(sum(value.numel() for value in moments)), rel=1e-4)


def test_losses_of_earlier_steps_fade(maml):
    counted = []

    def outer(slow, tasks, weights):
        counted.append((len(weights), weights[-1]))
        return pushed(maml).outer(slow, tasks, weights)

    trained_on(maml._replace(outer=outer), Training(8, way=4, multi_step=0.5))
    assert [number for number, _ in counted] == [5] * 4 + [1] * 4
    assert [share for _, share in counted] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_domains_of_different_size_are_mixed(protonet):
    small = blob_pool(classes=6, seed=1, per_class=4)
    settings, ways = Training(30, way=30, query=2, tasks=2), set()

    def outer(slow, tasks, weights):
        ways.add((tasks.onehot.shape[2], tasks.query_x.shape[1]))
        return pushed(protonet).outer(slow, tasks, weights)

    trained_on(protonet._replace(outer=outer), settings, pools=[POOL, small])
    assert ways == {(6, 12)}  # as many ways as the smaller one has classes
    mixed = trained_on(protonet, settings, pools=[POOL, small])
    assert not same(mixed, trained_on(protonet, settings.suited([small]), pools=POOL))
    assert all(value.isfinite().all() for value in mixed.values())


def test_sizes_of_tasks_are_drawn_from_those_given(protonet):
    seen = set()

    def outer(slow, tasks, weights):
        seen.add((tasks.onehot.shape[2], tasks.x.shape[1] // tasks.onehot.shape[2]))
        return pushed(protonet).outer(slow, tasks, weights)

    trained_on(protonet._replace(outer=outer), Training(40, way=(3, 5), shot=(1, 2), query=2))
    assert seen == {(3, 1), (3, 2), (5, 1), (5, 2)}


# early stop


def test_the_parameters_that_the_judge_liked_best_are_returned(protonet):
    scores, shown = iter([0.5, 0.7, 0.6, 0.7, 0.9]), []

    def judge(slow):
        shown.append(slow)
        return next(scores)

    ticks: list[int] = []
    settings = Training(20, way=4, check_every=3, patience=2)
    best = trained_on(protonet, settings, judge=judge, tick=ticks.append)
    assert len(shown) == 4 and ticks[-1] == 12  # the third and the fourth were no better than the second
    assert same(best, {name: shown[1][name] for name in best})


def test_without_patience_all_episodes_are_trained_and_the_best_returned(protonet):
    scores, shown = iter([0.5, 0.4, 0.3]), []

    def judge(slow):
        shown.append(slow)
        return next(scores)

    best = trained_on(protonet, Training(8, way=4, check_every=3), judge=judge)
    assert len(shown) == 3  # after 3 and 6 episodes, and at the end
    assert same(best, {name: shown[0][name] for name in best})


# numbers that are none


def failing(learner, *, after: int, times: int = 10**9):
    """The learner, whose loss is no number `times` times `after` so many updates; and the parameters it was given."""
    given: list[dict[str, torch.Tensor]] = []

    def outer(slow, tasks, weights):
        given.append({name: value.detach().clone() for name, value in slow.items()})
        meta = pushed(learner).outer(slow, tasks, weights)
        slow["stat.0.mean"].add_(1.0)
        if not after < len(given) <= after + times:
            return meta
        return Meta(torch.tensor(math.nan), {name: value * math.nan for name, value in meta.gradient.items()})

    return learner._replace(outer=outer), given


def test_a_bad_update_changes_nothing(protonet, tmp_path):
    learner, given = failing(protonet, after=3, times=1)
    path, kept = tmp_path / "c", []

    def tick(done: int) -> None:
        if done > 1:
            kept.append(load_file(path))

    last = trained_on(learner, Training(6, way=4, check_every=1), keep=path, tick=tick)
    assert same(given[3], given[4]) and not same(given[2], given[3])  # weights and statistics of the fourth update
    moments = [{name: value for name, value in state.items() if name[0] in "mv"} for state in kept]
    assert same(moments[2], moments[3]) and not same(moments[1], moments[2])
    assert last["stat.0.mean"].tolist() == pytest.approx([5.0] * 4)  # six updates, one of them bad


@pytest.mark.parametrize("after", [0, 4])
def test_ten_bad_updates_in_a_row_end_it_with_the_last_good_weights(protonet, after):
    learner, given = failing(protonet, after=after)
    start = start_of(protonet)
    with pytest.raises(
        Diverged, match=r"protonet: loss is nan .* 10 times running after \d+ episodes; lower lr"
    ) as told:
        trained_on(learner, Training(60, way=4), start=start)
    assert len(given) == after + BAD_UPDATES and "\n" not in str(told.value)
    assert same(told.value.kept, given[max(0, after - 1)])  # those that gave the last loss there was
    assert told.value.kept.keys() == start.keys()


def test_nine_bad_updates_are_survived(protonet):
    learner, given = failing(protonet, after=2, times=BAD_UPDATES - 1)
    assert trained_on(learner, Training(14, way=4)) and len(given) == 14


def test_it_does_not_end_on_weights_that_give_no_loss(protonet):
    learner, given = failing(protonet, after=3, times=2)
    trained_on(learner, Training(4, way=4))
    assert len(given) == 6  # the fourth failed, the fifth too; the sixth, at a rate of zero, found the weights good
    with pytest.raises(Diverged):
        trained_on(protonet, Training(2, way=4, lr=1e30))


def test_a_start_that_is_no_number_is_told(protonet):
    broken = start_of(protonet) | {"0.weight": torch.full((4, 1, 3, 3), math.nan)}
    with pytest.raises(Diverged, match="loss is nan"):
        trained_on(protonet, Training(30, way=4), start=broken)


@pytest.mark.parametrize(
    ("name", "rate", "said"),
    [
        ("anil", {"lr": 1e9}, r"anil: loss is .* or the inner rates \(head 1e\+09\)"),
        ("maml", {"body_lr": 1e9}, r"maml: loss is .* or the inner rates \(head 0.02, body 1e\+09\)"),
        ("meta-sgd", {"body_lr": 1e9}, r"meta-sgd: loss is .* or the inner rates \(.*rate\.0\.weight 1e\+09"),
    ],
)
def test_an_inner_rate_that_diverges_is_named_and_the_last_good_weights_kept(name, rate, said):
    learner = LEARNERS[name](crew("maml")[1].net, **rate)
    start = start_of(learner)
    with pytest.raises(Diverged, match=said) as told:
        trained_on(learner, Training(40, way=3, query=2), start=start)
    assert "\n" not in str(told.value) and told.value.kept.keys() == start.keys()
    assert all(value.isfinite().all() for value in told.value.kept.values())
    assert name == "anil" or same(told.value.kept, start)  # a head alone may be right by chance, whatever its scale


# bad input


def task(**changed) -> Episode:
    right = {"support_x": torch.rand(4, 1, 12, 12), "support_y": torch.tensor([0, 0, 1, 1])}
    right |= {"query_x": torch.rand(2, 1, 12, 12), "query_y": torch.tensor([0, 1]), "way": 2, "shot": 2}
    return Episode(**{**right, "classes": (0, 1), **changed})


def test_a_right_episode_gives_its_support():
    support = support_of(task())
    assert support.onehot.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]] and support.x.shape == (4, 1, 12, 12)


NAN = torch.rand(4, 1, 12, 12).index_put((torch.tensor(2), *[torch.tensor(0)] * 3), torch.tensor(math.nan))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"support_y": torch.tensor([0, 0, 1, 2])}, "support labels run from 0 to 2, not 0 to 1; number"),
        ({"support_y": torch.tensor([-1, 0, 1, 1])}, "support labels run from -1 to 1"),
        ({"query_y": torch.tensor([0, 7])}, "query labels run from 0 to 7"),
        ({"support_y": torch.tensor([1, 1, 1, 1])}, "class 0 of 2 has no example in the support"),
        ({"support_y": torch.tensor([0, 0, 1])}, "support labels are .* one int64 for each of 4 examples"),
        ({"support_y": torch.tensor([0.0, 0.0, 1.0, 1.0])}, "support labels are .*float32"),
        ({"support_x": NAN}, "support images hold NaN or infinity; remove or repair them"),
        ({"query_x": torch.full((2, 1, 12, 12), math.inf)}, "query images hold NaN or infinity"),
    ],
)
def test_an_episode_that_teaches_nothing_is_refused_in_one_line(changed, says):
    with pytest.raises(BadData, match=says) as refusal:
        support_of(task(**changed))
    assert "\n" not in str(refusal.value)


def test_images_of_another_shape_are_refused(protonet):
    with pytest.raises(
        BadData, match="images are 1x16x16, and the network takes 1x12x12; load them with in_shape 1x12x12"
    ):
        trained_on(protonet, Training(2, way=4), pools=[POOL, blob_pool(classes=5, seed=0, size=16)])


def test_a_shot_that_the_data_cannot_give_is_refused(protonet):
    with pytest.raises(BadData, match="0 of 12 classes have 11 images"):
        trained_on(protonet, Training(2, way=4, shot=10))


def test_images_that_are_all_the_same_are_refused(protonet):
    alike = replace(POOL, x=torch.full_like(POOL.x, 9))
    with pytest.raises(BadData, match="all 120 images are the same"):
        trained_on(protonet, Training(2, way=4), pools=[POOL, alike])
