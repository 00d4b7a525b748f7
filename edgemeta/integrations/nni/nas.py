"""Our spaces as model spaces of `nni.nas`, under caps, and its strategies over them in this process.

Take NNI's strategies from here (`nas.strategy`), or import this first: `nni.nas` by itself wants PyTorch Lightning.
"""

# ruff: noqa: E402  (NNI's framework is set between imports)
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, final

import nni

nni.set_default_framework("none")  # before `nni.nas`, which else looks for PyTorch Lightning and fails without it

from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.mutable import Categorical, Constraint, ConstraintViolation, LabeledMutable, Mutable
from nni.mutable.exception import SampleValidationError
from nni.nas import strategy
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import BaseModelSpace, RawFormatModelSpace
from nni.nas.strategy.hpo import HPOTunerStrategy
from nni.tuner import Tuner
from numpy.random import RandomState

from edgemeta.integrations.nni.spaces import arch_of, parameters
from edgemeta.search.feasible import CostOf, repair, require_feasible
from edgemeta.space.space import Space
from edgemeta.types import Arch, Cost

Sample = dict[str, Any]
TRIES = 50  # proposals of a tuner before the last one is repaired


@final
class CapConstraint(Constraint):
    """That an architecture costs no more than the cap. Unlike NNI's own constraints it can draw a sample that holds.

    `cost_of` is asked for each architecture: `Problem.bound` judges with the upper end of the latency interval.
    """

    def __init__(self, space: Space, cost_of: CostOf, cap: Cost, *, label: str = "caps"):
        self.label, self.space, self.cost_of, self.cap = label, space, cost_of, cap
        self.choices = [Categorical(options, label=name) for name, options in space.slots]

    def leaf_mutables(self, is_leaf: Callable[[Mutable], bool]) -> Iterable[LabeledMutable]:
        """Itself first, so that what it draws stands before the choices are asked."""
        yield self
        yield from self.choices

    def check_contains(self, sample: Sample) -> SampleValidationError | None:
        for choice in self.choices:
            if wrong := choice.check_contains(sample):
                return wrong
        cost = self.cost_of(self.arch(sample))
        if over := cost.over(self.cap):
            return ConstraintViolation(f"{', '.join(over)} over the cap: {cost} > {self.cap}")
        return None

    def random(self, memo: Sample | None = None, random_state: RandomState | None = None) -> None:
        """Put a random architecture under the cap into `memo`, walking there where the draw is over it."""
        rng = Random(int((random_state or RandomState()).randint(2**31)))
        arch = repair(self.space.sample(rng=rng), self.space, self.cost_of, self.cap, rng=rng)
        if arch is None:
            raise ConstraintViolation(f"no architecture under {self.cap} near the one drawn")
        if memo is not None:
            memo.update(parameters(arch, self.space))

    def as_legacy_dict(self) -> dict[str, Any]:
        return {"_type": "constraint", "_value": str(self.cap)}

    def arch(self, sample: Mapping[str, Any]) -> Arch:
        """The architecture of a sample, which may have keys of others as well."""
        return arch_of({name: sample[name] for name, _ in self.space.slots}, self.space)

    def extra_repr(self) -> str:
        return f"{self.cap}, label={self.label!r}"


@final
class ArchSpace(BaseModelSpace):
    """A space for NNI's strategies; a sample freezes to an `Arch`, and none over the cap is in it.

    Infeasible where nothing meets the cap, with the nearest architecture.
    """

    def __init__(self, space: Space, cost_of: CostOf, cap: Cost):
        require_feasible(space, cost_of, cap, rng=Random(0))
        self.space, self.constraint = space, CapConstraint(space, cost_of, cap)

    def leaf_mutables(self, is_leaf: Callable[[Mutable], bool]) -> Iterable[LabeledMutable]:
        return self.constraint.leaf_mutables(is_leaf)

    def check_contains(self, sample: Sample) -> SampleValidationError | None:
        return self.constraint.check_contains(sample)

    def freeze(self, sample: Sample) -> Arch:
        self.validate(sample)
        return self.constraint.arch(sample)

    def extra_repr(self) -> str:
        return f"{self.space.name}, {self.constraint.cap}"


def explore(
    proposing: strategy.Strategy, space: ArchSpace, score: Callable[[Arch], float], *, trials: int
) -> list[tuple[Arch, float]]:
    """Let a strategy of NNI propose up to `trials` architectures under the cap, scored here one after another.

    Returns (architecture, score) in the order of proposal, for a score that is better when higher. It wants a strategy
    that is run for the first time, such as `strategy.RegularizedEvolution(seed=0)` or `tpe(space, seed=0)`.
    """
    engine = SequentialExecutionEngine(max_model_count=trials)
    proposing(_Scored(space, FunctionalEvaluator(_report, score=score)), engine)
    return [(space.constraint.arch(model.sample), model.metric) for model in engine.list_models()]


@final
class _Scored(RawFormatModelSpace):
    """A model keeps a sample of its own: NNI's grid search goes on to change the one that it hands over."""

    def freeze(self, sample: Sample) -> RawFormatModelSpace:
        return super().freeze(dict(sample))


def _report(arch: Arch, score: Callable[[Arch], float]) -> None:
    nni.report_final_result(float(score(arch)))


def tpe(space: ArchSpace, *, seed: int, **settings: Any) -> HPOTunerStrategy:
    """NNI's TPE as a strategy that stays under the cap; `settings` are its `tpe_args`, such as `n_startup_jobs`."""
    tuner = TpeTuner(optimize_mode="maximize", seed=seed, tpe_args=settings or None)
    return HPOTunerStrategy(UnderCaps(tuner, space.constraint, seed=seed))


@final
class UnderCaps(Tuner):
    """A tuner of NNI that is asked until what it proposes fits; after `TRIES` the last proposal is repaired.

    The tuner learns of a repaired architecture by `import_data`, because it never proposed it.
    """

    def __init__(self, tuner: Tuner, constraint: CapConstraint, *, seed: int):
        self._tuner, self._constraint, self._rng = tuner, constraint, Random(seed)
        self._repaired: set[int] = set()

    def update_search_space(self, search_space: Mapping[str, Any]) -> None:
        slots = dict(self._constraint.space.slots)
        self._tuner.update_search_space({name: of for name, of in search_space.items() if name in slots})

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Sample:
        for _ in range(TRIES):
            proposed = self._tuner.generate_parameters(parameter_id, **kwargs)
            if self._constraint.contains(proposed):
                return proposed
            self._tuner.trial_end(parameter_id, False)
        return self._near(parameter_id, self._constraint.arch(proposed))

    def _near(self, parameter_id: int, arch: Arch) -> Sample:
        own = self._constraint
        near = repair(arch, own.space, own.cost_of, own.cap, rng=self._rng)
        if near is None:
            raise nni.NoMoreTrialError(f"nothing under {own.cap} near {arch}")
        self._repaired.add(parameter_id)
        return parameters(near, own.space)

    def receive_trial_result(self, parameter_id: int, parameters: Sample, value: Any, **kwargs: Any) -> None:
        if parameter_id in self._repaired:
            self._tuner.import_data([{"parameter": parameters, "value": value}])
        else:
            self._tuner.receive_trial_result(parameter_id, parameters, value, **kwargs)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        if parameter_id not in self._repaired:
            self._tuner.trial_end(parameter_id, success, **kwargs)
        self._repaired.discard(parameter_id)
