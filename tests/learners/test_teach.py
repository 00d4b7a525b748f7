"""Few examples, from their arrays to names: uneven, single, saved, extended, damaged."""

import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgemeta.errors import BadConfig, BadData, Diverged, EdgemetaError
from edgemeta.learners import LEARNERS
from edgemeta.learners.inner import DONE
from edgemeta.learners.maml import maml
from edgemeta.learners.teach import identity, load, teach
from edgemeta.learners.train import adapt, support_of
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny
from edgemeta.types import Episode
from tests.blobs import blob_pool

SIZES = {"cat": 1, "dog": 6, "fox": 3}  # uneven


@pytest.fixture
def net():
    space = tiny()
    return build(space.ops(space.arch([{"width": 8}, {"width": 8}])))


def start(make, net):
    learner = make(net)
    return learner, learner.init(rng=torch.Generator().manual_seed(3))


@pytest.fixture
def protonet(net):
    return start(LEARNERS["protonet"], net)


@pytest.fixture(params=LEARNERS)
def parts(request, net):
    return start(LEARNERS[request.param], net)


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    """Ten (1, 12, 12) uint8 images each."""
    pool = blob_pool(classes=3, seed=4)
    return {name: pool.x[own].numpy() for name, own in zip(SIZES, pool.by_class, strict=True)}


@pytest.fixture
def few(images):
    return {name: images[name][:n] for name, n in SIZES.items()}


def test_uneven_classes_are_learned_as_an_episode_would(parts, few, images):
    learner, slow = parts
    taught = teach(learner, slow, few)
    assert taught.counts == SIZES and taught.names == tuple(SIZES)
    x = torch.from_numpy(np.concatenate(list(few.values()))).float() / 255
    y = torch.arange(3).repeat_interleave(torch.tensor(list(SIZES.values())))
    x = learner.net.body(slow, x) if learner.on_features else x
    fast = adapt(learner, slow, support_of(Episode(x, y, x, y, 3, 0, (0, 1, 2))))
    for name, value in fast.items():
        torch.testing.assert_close(taught.fast[name], value)
    assert not any(value.requires_grad for value in taught.fast.values())


def test_what_it_has_not_seen_gets_its_name(protonet, few, images):
    taught = teach(*protonet, few)
    right = 0
    for name, own in images.items():
        names, probabilities = taught.predict(own[6:])
        assert probabilities.shape == (4,) and (probabilities > 1 / 3).all()
        right += names.count(name)
    assert right >= 9  # of 12; chance is 4


def test_one_image_is_a_batch_of_one(parts, few, images):
    taught = teach(*parts, few)
    several = taught.probabilities(images["dog"][6:8])
    assert several.shape == (2, 3) and np.allclose(several.sum(1), 1.0)
    for one in (images["dog"][6], images["dog"][6, 0], torch.from_numpy(images["dog"][6]), images["dog"][6] / 255):
        names, probabilities = taught.predict(one)
        assert names == [taught.names[several[0].argmax()]]
        assert probabilities[0] == pytest.approx(several[0].max(), abs=1e-4)


def test_saved_and_loaded_it_answers_the_same(parts, few, images, tmp_path):
    learner, slow = parts
    taught = teach(learner, slow, few)
    found = load(taught.save(tmp_path / "new" / "pets.safetensors"), learner, slow)
    assert found.names == taught.names and found.counts == taught.counts and found.scale is taught.scale
    np.testing.assert_array_equal(found.probabilities(images["fox"]), taught.probabilities(images["fox"]))


def test_more_is_the_same_as_all_at_once(parts, few, images):
    learner, slow = parts
    first = teach(learner, slow, {name: few[name] for name in ("cat", "dog")})
    then = first.more({"fox": few["fox"]})
    together = teach(learner, slow, few)
    assert first.names == ("cat", "dog") and then.names == together.names
    np.testing.assert_array_equal(then.probabilities(images["cat"]), together.probabilities(images["cat"]))
    more = then.more({"cat": images["cat"][1:4]})
    assert more.counts == {"cat": 4, "dog": 6, "fox": 3} and then.counts["cat"] == 1


def test_what_was_loaded_learns_more(protonet, few, images, tmp_path):
    found = load(teach(*protonet, few).save(tmp_path / "pets"), *protonet)
    assert found.more({"owl": images["cat"][:2]}).names == ("cat", "dog", "fox", "owl")


def test_scale_is_kept(protonet, images, tmp_path):
    floats = {name: own[:3].astype(np.float64) for name, own in images.items()}  # 0 to 255
    taught = teach(*protonet, floats, scale=1 / 255)
    as_bytes = teach(*protonet, {name: own[:3] for name, own in images.items()})
    found = load(taught.save(tmp_path / "pets"), *protonet)
    for one in (taught, found):
        answer = one.probabilities(images["dog"].astype(np.float32))
        np.testing.assert_allclose(answer, as_bytes.probabilities(images["dog"]), atol=1e-5)


@pytest.mark.parametrize("level", [0, 128])
def test_constant_images_give_probabilities_all_the_same(parts, level):
    blank = np.full((2, 12, 12), level, np.uint8)
    answer = teach(*parts, {"a": blank, "b": blank}).probabilities(blank)
    assert np.isfinite(answer).all() and np.allclose(answer.sum(1), 1.0)


def full(*shape: int, value: float = 0.5) -> np.ndarray:
    return np.full(shape, value, np.float32)


FINE = full(2, 12, 12)
BAD = {
    "nothing": ({}, "no examples"),
    "no mapping": ([FINE], "no examples"),
    "one class": ({"a": FINE}, "the only class is 'a'.*add a second"),
    "empty class": ({"a": FINE, "b": FINE[:0]}, "class 'b' has no images"),
    "empty list": ({"a": FINE, "b": []}, "class 'b' has no images"),
    "shape": ({"a": FINE, "b": full(2, 9, 12)}, "class 'b': images are 2x9x12, the network takes 1x12x12"),
    "channels last": ({"a": FINE, "b": full(2, 12, 12, 1)}, "images are 2x12x12x1"),
    "colour": ({"a": FINE, "b": full(2, 3, 12, 12)}, "images are 2x3x12x12"),
    "ragged": ({"a": FINE, "b": [full(12, 12), full(11, 12)]}, "class 'b': images are no array"),
    "whole numbers": ({"a": FINE, "b": FINE.astype(int)}, "images are int64"),
    "NaN": (
        {"a": FINE, "b": np.stack([full(12, 12), full(12, 12, value=np.nan)])},
        "'b': 1 images hold NaN.* number 1",
    ),
    "infinity": ({"a": FINE, "b": full(2, 12, 12, value=np.inf)}, "class 'b': 2 images hold NaN or infinity"),
    "too large": ({"a": FINE, "b": np.full((1, 12, 12), 1e300)}, "class 'b': 1 images hold NaN or infinity"),
    "overflow": (
        {"a": FINE, "b": full(2, 12, 12, value=3e38)},
        "class 'b': the network overflows on values up to 3e\\+38",
    ),
    "number": ({"a": FINE, 7: FINE}, "7 is no name"),
    "empty name": ({"a": FINE, "": FINE}, "'' is no name"),
}


@pytest.mark.parametrize(("examples", "said"), BAD.values(), ids=BAD)
def test_bad_examples_are_one_line(protonet, examples, said):
    with pytest.raises(BadData, match=said) as caught:
        teach(*protonet, examples)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "said"), [(full(3, 9, 9), "3x9x9"), ([], "no images"), (FINE * np.nan, "NaN")])
def test_bad_questions_are_one_line(protonet, few, asked, said):
    with pytest.raises(BadData, match=said):
        teach(*protonet, few).predict(asked)


def test_an_overflow_is_no_answer(net, few):
    taught = teach(*start(LEARNERS["maml"], net), few)
    with pytest.raises(BadData, match="maml gives no finite numbers; scale"):
        taught.predict(full(1, 12, 12, value=3e38))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(protonet, few, scale):
    with pytest.raises(BadConfig, match="cannot be scaled"):
        teach(*protonet, few, scale=scale)


def test_weights_of_another_learner_or_net_are_refused(net, protonet, few):
    ridge, _ = start(LEARNERS["ridge"], net)
    with pytest.raises(BadConfig, match="the weights have no 'head.log_scale', which 'ridge' needs"):
        teach(ridge, protonet[1], few)
    space = tiny()
    wide = LEARNERS["protonet"](build(space.ops(space.arch([{"width": 4}, {"width": 8}]))))
    with pytest.raises(BadConfig, match="is 8x1x3x3, this 'protonet' needs 4x1x3x3"):
        teach(wide, protonet[1], few)


def test_a_file_of_others_is_refused(net, protonet, few, tmp_path):
    learner, slow = protonet
    path = teach(learner, slow, few).save(tmp_path / "pets.safetensors")
    with pytest.raises(BadData, match="taught to 'protonet', not to this 'ridge'"):
        load(path, *start(LEARNERS["ridge"], net))
    other = slow | {"0.beta": slow["0.beta"] + 1e-6}
    with pytest.raises(BadData, match="taught to other weights or settings, not to this 'protonet'"):
        load(path, learner, other)
    assert identity(learner, other) != identity(learner, slow) == identity(learner, dict(reversed(slow.items())))


def rewritten(path: Path, **changes) -> Path:
    """The file with some of its parts changed."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        note = json.loads(file.metadata()["taught"])
    tensors = load_file(path)
    note |= {key: value for key, value in changes.items() if key not in tensors}
    tensors |= {key: value for key, value in changes.items() if key in tensors}
    save_file(tensors, path, metadata={"taught": json.dumps(note)})
    return path


DAMAGE = {
    "features": {"x": torch.zeros(10, 7)},
    "rows": {"x": torch.zeros(9, 8)},
    "NaN": {"x": torch.full((10, 8), float("nan"))},
    "doubles": {"x": torch.zeros(10, 8, dtype=torch.float64)},
    "label too large": {"labels": torch.tensor([0] * 5 + [1, 2, 3, 1, 1])},
    "label below zero": {"labels": torch.tensor([0] * 5 + [1, 2, -1, 1, 1])},
    "class without examples": {"labels": torch.tensor([0] * 5 + [1] * 5)},
    "float labels": {"labels": torch.zeros(10)},
    "same names": {"names": ["a", "a", "b"]},
    "numbers for names": {"names": [1, 2, 3]},
    "no names": {"names": None},
    "format": {"format": 99},
    "scale": {"scale": "large"},
}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_line(protonet, few, tmp_path, changes):
    path = teach(*protonet, few).save(tmp_path / "pets")
    assert load(rewritten(path), *protonet).names == ("cat", "dog", "fox")
    rewritten(path, **changes)
    with pytest.raises(BadData, match="pets.*teach again") as caught:
        load(path, *protonet)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"junk" * 100, None])
def test_no_file_or_no_safetensors_is_one_line(protonet, tmp_path, data):
    path = tmp_path / "pets"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadData, match="cannot read"):
        load(path, *protonet)


def diverging(net, **settings):
    return start(partial(maml, name="anil", scope="head", rates="fixed", **settings), net)


@pytest.mark.parametrize("factor", [-1e6, float("inf")])
def test_a_diverging_inner_loop_keeps_the_last_good_weights(net, few, factor):
    """The third step throws the weights far off, or out of numbers."""
    learner, slow = diverging(net)

    def step(slow, fast, support):
        moved = learner.step(slow, fast, support)
        return moved | {"weight": moved["weight"] * (1.0 if fast[DONE] < 2 else factor)}

    with pytest.warns(RuntimeWarning, match=r"anil diverges at step 3 of 5: what it knew before is kept; give images"):
        taught = teach(learner._replace(step=step), slow, few)
    assert taught.fast[DONE].item() == 2
    assert all(value.isfinite().all() for value in taught.fast.values())
    assert np.isfinite(taught.probabilities(few["dog"])).all()


@pytest.mark.parametrize("lr", [1e4, float("inf")])
def test_a_rate_that_is_too_high_is_said(net, few, lr):
    learner, slow = diverging(net, lr=lr)
    with pytest.warns(RuntimeWarning, match=r"anil diverges at step \d of 5"):
        taught = teach(learner, slow, few)
    assert np.isfinite(taught.probabilities(few["dog"])).all()


def test_where_nothing_was_known_before_it_says_so_and_gives_no_answer(net, few):
    learner, slow = diverging(net, head="row", lr=float("inf"))
    with pytest.raises(Diverged, match="anil diverges at step 1 of 5, and knows nothing before it") as caught:
        teach(learner, slow, few)
    assert all(value.isfinite().all() for value in caught.value.kept.values())


def test_a_sound_inner_loop_warns_of_nothing(parts, few):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taught = teach(*parts, few)
    assert all(value.isfinite().all() for value in taught.fast.values())


def test_a_folder_that_cannot_be_written_is_one_line(protonet, few, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EdgemetaError, match="cannot write"):
        teach(*protonet, few).save(tmp_path / "file" / "pets")


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page() -> str:
    return (ROOT / "docs" / "learners.md").read_text(encoding="utf-8")


def test_the_page_names_every_learner_and_its_family(page):
    table = page.split("| learner | family |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert sorted(row[0].strip("`") for row in rows) == sorted(LEARNERS)
    assert {row[1] for row in rows} == {"representation", "optimiser", "behaviour"}
    assert all(len(row) == 4 and all(row) for row in rows)
