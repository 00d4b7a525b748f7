from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import cover
from edgemeta.latency import kit as kits
from edgemeta.space.presets import tiny as tiny_space


@pytest.fixture
def copy(kit, tmp_path):
    return shutil.copytree(kit.folder, tmp_path / "kit")


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_kit_is_read_back_without_naming_its_space(kit, copy):
    again = kits.read(copy)
    assert (again.id, again.archs, again.covering, again.space) == (kit.id, kit.archs, kit.covering, kit.space)


def test_the_covering_networks_come_first_and_hold_every_operator(kit, tiny):
    held = {op.key for arch in kit.archs[: kit.covering] for op in tiny.ops(arch)}
    assert held == set(cover.operators(tiny)) and len(kit.archs) == kit.covering + 2 == len(set(kit.archs))


def test_the_same_arguments_give_the_same_kit_and_others_another(kit, tiny, tmp_path):
    def written(name, archs=kit.archs, **changed):
        return kits.write(tmp_path / name, tiny, archs, **(dict(covering=kit.covering, seed=0) | changed)).id

    assert written("same") == kit.id == written("slower", seconds=7.0)
    others = [
        written("a", threads=2),
        written("b", precision="int8"),
        written("c", seed=1),
        written("d", kit.archs[1:]),
    ]
    assert len({kit.id, *others}) == 5


def test_large_weights_are_shared_and_the_input_is_normal(kit):
    models = kit.folder / "models"
    weights = (models / "weights.bin").stat().st_size
    assert sum(path.stat().st_size for path in models.glob("*.onnx")) < weights
    x = np.fromfile(models / "input.bin", np.float32)
    assert x.size == np.prod(kit.space.in_shape) and abs(x.mean()) < 0.5 and 0.5 < x.std() < 1.5


def test_few_networks_are_timed_at_more_moments(tiny, tmp_path, kit):
    few = kits.write(tmp_path, tiny, kit.archs[:3], seed=0)
    plans = [json.loads((each.folder / "plan.json").read_text()) for each in (kit, few)]
    assert plans[0]["passes"] < plans[1]["passes"] and plans[0]["max_passes"] < plans[1]["max_passes"]


def test_no_network_is_refused(tiny, tmp_path):
    with pytest.raises(BadProfile) as error:
        kits.write(tmp_path, tiny, [], seed=0)
    assert "at least one" in one_line(error)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda kit: (kit / "plan.json").unlink(), "no kit in"),
        (lambda kit: (kit / "plan.json").write_text('{"format": 1'), "damaged"),
        (lambda kit: (kit / "plan.json").write_text('{"format": 1}'), "damaged"),
        (lambda kit: (kit / "plan.json").write_text('{"format": 2}'), "format 1"),
        (lambda kit: (kit / "plan.json").write_text("[" * 10**5), "damaged"),
        (lambda kit: (kit / "models" / "0001.onnx").unlink(), "lacks a file"),
        (lambda kit: (kit / "models" / "0001.onnx").write_bytes(b"x"), "changed"),
        (lambda kit: (kit / "models" / "weights.bin").write_bytes(b"x"), "changed"),
        (lambda kit: edit(kit, threads=3), "changed"),
        (lambda kit: edit(kit, space="nosuch-1x12x12"), "unknown here"),
        (lambda kit: edit(kit, input_shape=[1]), "changed"),
    ],
)
def test_what_is_not_as_written_is_refused(copy, spoil, says):
    spoil(copy)
    with pytest.raises(BadProfile) as error:
        kits.read(copy)
    assert says in one_line(error)


def edit(kit, **changed):
    plan = json.loads((kit / "plan.json").read_text())
    (kit / "plan.json").write_text(json.dumps(plan | changed))


def test_a_kit_of_another_space_is_refused(kit):
    with pytest.raises(BadProfile, match="not tiny-1x16x16"):
        kits.read(kit.folder, tiny_space((1, 16, 16)))


def test_a_kit_makes_way_for_a_kit_and_nothing_else_does(copy, tmp_path):
    kits.clear(tmp_path / "absent")
    (copy / "timings.json").write_text("kept")
    kits.clear(copy)
    assert not (copy / "models").exists() and (copy / "timings.json").exists()
    with pytest.raises(BadProfile, match="something else"):
        kits.clear(copy)


def test_a_kit_to_carry_brings_its_runner_and_says_what_to_do(copy):
    text = kits.carry(copy).read_text()
    assert (copy / "edgemeta_profile.py").exists() and "python3 edgemeta_profile.py" in text and "--from" in text
    assert kits.read(copy).archs
