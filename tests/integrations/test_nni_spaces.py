"""Our spaces in NNI's JSON, and a problem in the files that its processes read: neither needs NNI."""

import json
from dataclasses import replace
from random import Random

import pytest

from edgemeta.errors import BadConfig, EdgemetaError
from edgemeta.integrations.nni import task
from edgemeta.integrations.nni.spaces import arch_of, parameters, require_same, search_space
from edgemeta.latency import profile as profiles
from edgemeta.space.presets import SPACES


@pytest.mark.parametrize("name", SPACES)
def test_architectures_survive_the_way_to_json_and_back(name, rng):
    space = SPACES[name]((3, 1, 128) if name == "seq" else (1, 28, 28))
    assert json.loads(json.dumps(search_space(space))) == search_space(space)
    for _ in range(20):
        arch = space.sample(rng=rng)
        assert arch_of(json.loads(json.dumps(parameters(arch, space))), space) == arch


def test_parameters_of_another_space_are_named(tiny, rng):
    good = parameters(tiny.sample(rng=rng), tiny)
    with pytest.raises(BadConfig, match="'stage1.widht' is no slot of tiny.*did you mean 'stage1.width'"):
        arch_of(good | {"stage1.widht": 4}, tiny)
    with pytest.raises(BadConfig, match=r"stage1.width = 5 is not in tiny.*\(4, 8\)"):
        arch_of(good | {"stage1.width": 5}, tiny)
    with pytest.raises(BadConfig, match="lack stage2.kind"):
        arch_of({name: value for name, value in good.items() if name != "stage2.kind"}, tiny)
    changed = search_space(tiny) | {"stage1.width": {"_type": "choice", "_value": [4]}}
    with pytest.raises(BadConfig, match="stage1.width as .*_value': \\[4\\]"):
        require_same(changed, tiny)


def test_a_problem_survives_the_way_to_another_process(problem, tmp_path):
    task.write(problem, profiles.load("null"), tmp_path / "code")
    again = task.read(tmp_path / "code", head=False)
    arch = problem.space.sample(rng=Random(0))
    assert again.job(arch, 0) == problem.job(arch, 0)
    assert (again.task, again.cap, again.cost(arch)) == (problem.task, problem.cap, problem.cost(arch))


def test_with_the_head_flash_is_what_the_learner_ships(problem, tmp_path):
    from edgemeta.lowering.bundle import head_kib

    task.write(problem, profiles.load("null"), tmp_path / "code")
    arch = problem.space.sample(rng=Random(0))
    whole = replace(problem, head_kib=lambda ops: head_kib("protonet", ops))
    assert task.read(tmp_path / "code").cost(arch) == whole.cost(arch) != problem.cost(arch)


def test_far_away_weights_lie_where_the_trial_runs(problem, tmp_path, monkeypatch):
    task.write(problem, profiles.load("null"), tmp_path / "code", far=True)
    monkeypatch.chdir(tmp_path / "code")
    assert task.read(tmp_path / "code", head=False).weights == tmp_path / "code" / "weights"


def test_a_spoilt_task_is_one_line(problem, tmp_path):
    path = task.write(problem, profiles.load("null"), tmp_path)
    path.write_text(path.read_text().replace('"way": 4', '"way": "four"'))
    with pytest.raises(EdgemetaError, match="cannot read .*task.json: way: .*start the search again") as error:
        task.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_space_without_a_name_is_refused(problem, tmp_path):
    cut = replace(problem, space=problem.space.cut(1))
    with pytest.raises(BadConfig, match="has no name by which a trial could make it"):
        task.write(cut, profiles.load("null"), tmp_path)
