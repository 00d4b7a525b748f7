"""What was saved comes back to the bit, or not at all."""

import numpy as np
import pytest
import torch

from edgemeta.errors import BadData
from edgemeta.learners.checkpoint import GROUPS, NUMBERS, Progress, load_progress, save_progress

CPU = torch.device("cpu")


def progress_at(seed: int = 0) -> Progress:
    rng = torch.Generator().manual_seed(seed)

    def tensors():
        wide = torch.randn(4, 3, 3, 3, generator=rng).contiguous(memory_format=torch.channels_last)
        return {"0.weight": wide, "head.row": torch.randn(5, generator=rng), "one": torch.randn((), generator=rng)}

    stream = np.random.default_rng(seed)
    stream.random(7)
    groups = {group: tensors() for group in GROUPS}
    return Progress("this", rng=stream, phase=1, done=30, steps=9, bad=2, best_score=0.7, stale=1, **groups)


@pytest.fixture
def path(tmp_path):
    save_progress(tmp_path / "a.checkpoint", progress_at())
    return tmp_path / "a.checkpoint"


def test_everything_comes_back_to_the_bit_and_in_its_layout(path):
    kept, back = progress_at(), load_progress(path, "this", CPU)
    assert back is not None
    assert [getattr(back, name) for name in NUMBERS] == [getattr(kept, name) for name in NUMBERS]
    for group in GROUPS:
        ours, theirs = getattr(kept, group), getattr(back, group)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(ours[name].stride() == theirs[name].stride() for name in ours)
    assert back.rng.random(5).tolist() == kept.rng.random(5).tolist()


def test_another_trainings_progress_and_no_progress_are_none(path, tmp_path):
    assert load_progress(path, "that", CPU) is None
    assert load_progress(tmp_path / "absent", "this", CPU) is None


def cut(share: float):
    return lambda data: data[: int(len(data) * share)]


def flipped(share: float):
    """One byte of the file changed, at a share of its length."""

    def change(data: bytes) -> bytes:
        place = int(len(data) * share)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


DAMAGES = {
    "empty": cut(0),
    "header cut": cut(0.01),
    "half": cut(0.5),
    "last byte": lambda data: data[:-1],
    "not a checkpoint": lambda data: b"hello",
    "number in the tensors": flipped(0.95),
    "number in the note": lambda data: data.replace(b'done\\": 30', b'done\\": 31'),
    "without a note": lambda data: data.replace(b'"progress"', b'"prxgress"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_refused_in_one_line(path, damage):
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    with pytest.raises(BadData, match=r"cannot read the checkpoint .*a\.checkpoint.*delete it") as refusal:
        load_progress(path, "this", CPU)
    assert "\n" not in str(refusal.value)


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(BadData, match="cannot read the checkpoint"):
        load_progress(tmp_path, "this", CPU)
