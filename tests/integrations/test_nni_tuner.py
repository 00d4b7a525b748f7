"""Our searchers behind NNI's `Tuner`."""

from dataclasses import replace

import pytest

pytest.importorskip("nni", reason="no NNI here; `make nni` tests with it")

import nni

from edgemeta.errors import BadConfig
from edgemeta.integrations.nni.spaces import arch_of, parameters, search_space
from edgemeta.integrations.nni.tuner import EdgemetaTuner, _counts, trial_of
from edgemeta.search import SEARCHERS
from edgemeta.types import Cost
from tests.integrations.test_optuna import Recorder
from tests.search.landscapes import hill


def tuner_of(searcher, space, problem=None, past=()):
    tuner = EdgemetaTuner(lambda: (searcher, space, problem, list(past)))
    tuner.update_search_space(search_space(space))
    return tuner


@pytest.mark.parametrize("name", ["random", "evolution", "metaqnn", "tpe"])
def test_every_proposal_is_new_and_is_what_the_searcher_hears_of(name, tiny):
    searcher = SEARCHERS[name](tiny, seed=3)
    told, tell = [], searcher.tell
    searcher.tell = lambda trial: (told.append(trial), tell(trial))
    tuner, asked = tuner_of(searcher, tiny), []
    for number in range(20):
        given = tuner.generate_parameters(number)
        asked.append(arch_of(given, tiny))
        tuner.receive_trial_result(number, given, hill(asked[-1]))
        tuner.trial_end(number, True)
    assert len({tiny.ops(arch) for arch in asked}) == 20
    assert [(trial.arch, trial.score) for trial in told] == [(arch, hill(arch)) for arch in asked]


def test_proposals_are_under_the_caps(tiny, problem):
    tight = replace(problem, cap=Cost(latency_ms=0.004))
    tuner = tuner_of(SEARCHERS["random"](tiny, seed=0), tiny, tight)
    for number in range(10):
        assert tight.bound(arch_of(tuner.generate_parameters(number), tiny)).fits(tight.cap)


def test_the_echo_is_believed_before_the_pairing(tiny, problem):
    """NNI may hand a result over with another trial's parameters."""
    recorder = Recorder(tiny.arch([{}, {}]))
    tuner = tuner_of(recorder, tiny, problem)
    given = tuner.generate_parameters(0)
    other = tiny.arch([{"width": 8}, {}])
    tuner.receive_trial_result(0, given, {"default": 0.5, "picks": list(other.picks), "fidelity": 2, "seconds": 1.5})
    [trial] = recorder.told
    assert (trial.arch, trial.score, trial.fidelity, trial.cost) == (other, 0.5, 2, problem.cost(other))


def test_a_trial_without_a_result_has_failed(tiny):
    recorder = Recorder(tiny.arch([{}, {}]))
    tuner = tuner_of(recorder, tiny)
    tuner.generate_parameters(0)
    tuner.trial_end(0, False)
    tuner.trial_end(0, False)
    assert [(trial.score, trial.status) for trial in recorder.told] == [(None, "failed: no result from its trial")]


def test_nothing_new_ends_the_search(tiny):
    tuner = tuner_of(Recorder(tiny.arch([{}, {}])), tiny)
    assert len(tuner.generate_multiple_parameters([0, 1])) == 1
    with pytest.raises(nni.NoMoreTrialError, match="nothing new"):
        tuner.generate_parameters(2)


def test_the_past_is_told_and_not_proposed_again(tiny, problem):
    arch = tiny.arch([{}, {}])
    past = trial_of(arch, {"default": 0.9, "fidelity": 2}, problem, "random")
    recorder = Recorder(arch)
    tuner = tuner_of(recorder, tiny, past=[past])
    assert recorder.told == [past]
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(0)
    assert not _counts(past, problem)  # its weights are not there
    kept = problem.weights_of(arch, 2)
    kept.parent.mkdir()
    kept.touch()
    assert _counts(past, problem) and not _counts(replace(past, fidelity=1), problem)


def test_another_space_is_refused(tiny):
    tuner = tuner_of(SEARCHERS["random"](tiny, seed=0), tiny)
    with pytest.raises(BadConfig, match="no slot of tiny"):
        tuner.update_search_space(search_space(tiny) | {"lr": {"_type": "uniform", "_value": [0, 1]}})
    assert parameters(tiny.arch([{}, {}]), tiny)
