"""Our searchers behind `optuna.create_study(sampler=...)`."""

import optuna
import pytest

from edgemeta.errors import BadConfig
from edgemeta.integrations.optuna import EdgemetaSampler, suggest
from edgemeta.search import SEARCHERS
from tests.search.landscapes import drive, hill


class Recorder:
    """A searcher that always wants the same, and keeps what it is told."""

    def __init__(self, arch):
        self.arch, self.told = arch, []

    def ask(self):
        return self.arch

    def tell(self, trial):
        self.told.append(trial)


@pytest.fixture
def recorder(tiny):
    return Recorder(tiny.arch([{"width": 8}, {"kind": "mb3"}]))


def study_of(recorder, tiny, direction="maximize"):
    return optuna.create_study(direction=direction, sampler=EdgemetaSampler(lambda: recorder, tiny))


@pytest.mark.parametrize("name", ["random", "evolution", "metaqnn"])
def test_a_study_tries_what_the_searcher_would_alone(name, tiny):
    sampler = EdgemetaSampler(lambda: SEARCHERS[name](tiny, seed=3), tiny)
    tried = []

    def objective(trial):
        tried.append(suggest(trial, tiny))
        return hill(tried[-1])

    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=30)
    assert tried == drive(SEARCHERS[name](tiny, seed=3), 30, hill)


def test_slots_come_in_any_order_and_those_left_out_keep_the_pick(recorder, tiny):
    def objective(trial):
        for name, options in reversed(tiny.slots[3:]):
            trial.suggest_categorical(name, options)
        return 0.25

    study_of(recorder, tiny).optimize(objective, n_trials=1)
    assert [(trial.arch, trial.score) for trial in recorder.told] == [(recorder.arch, 0.25)]


def test_what_was_fixed_from_outside_is_what_it_is_told(recorder, tiny):
    study = study_of(recorder, tiny)
    other = recorder.arch.swap(0, 1 - recorder.arch.picks[0])
    name, options = tiny.slots[0]
    study.enqueue_trial({name: options[other.picks[0]]})
    study.optimize(lambda trial: hill(suggest(trial, tiny)), n_trials=1)
    assert [trial.arch for trial in recorder.told] == [other]


def test_minimised_values_turn_their_sign_and_failures_have_no_score(recorder, tiny):
    study = study_of(recorder, tiny, direction="minimize")
    study.optimize(lambda trial: 0.2 + 0 * len(suggest(trial, tiny).picks), n_trials=1)
    study.optimize(lambda trial: [suggest(trial, tiny), 1 / 0][1], n_trials=1, catch=ZeroDivisionError)
    assert [(trial.score, trial.status) for trial in recorder.told] == [
        (-0.2, "ok"),
        (None, "failed: fail in the study"),
    ]


def test_what_it_cannot_sample_is_named(recorder, tiny):
    study = study_of(recorder, tiny)
    with pytest.raises(BadConfig, match="'stage1.widht' is no slot of tiny.*did you mean 'stage1.width'"):
        study.optimize(lambda trial: trial.suggest_categorical("stage1.widht", (4, 8)), n_trials=1)
    with pytest.raises(BadConfig, match=r"suggest_categorical\('stage1.width', \(4, 8\)\)"):
        study.optimize(lambda trial: trial.suggest_int("stage1.width", 4, 8), n_trials=1)
    both = optuna.create_study(directions=["maximize"] * 2, sampler=EdgemetaSampler(lambda: recorder, tiny))
    with pytest.raises(BadConfig, match="knows one objective, not 2"):
        both.optimize(lambda trial: (1.0, 1.0), n_trials=1)
