"""Searchers, the loop that runs them under a budget, and the ledger that remembers every trial.

`run` is the loop: it asks a searcher about a `problem`, gets proposals under the caps (`feasible`), has them trained
(`under_way`, by `jobs` in `workers` under `limits`) and keeps what came of it (`ledger`). Several processes share one
search through `storage` and `claims`.

Searchers: `random_search`, `evolution`, `metaqnn`, `enas` and `optuna_samplers`; on gradients (`by_gradient`, with
`expected` latencies and `probable` networks) `darts`, by `bilevel`, and `joint`, by `adaptation`; meta-learned
`meta_searcher`, by `metapolicy`, `knowledge` and `surrogate`, and `explain` on what it decides where. `supernet` scores
by shared weights, `tabular` searches where all answers stand in a table. `zoo` are networks trained ahead; `shipped`
reads the files that come with the wheel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from edgemeta.contracts import Searcher
from edgemeta.search.evolution import Evolution
from edgemeta.search.metaqnn import MetaQNN
from edgemeta.search.random_search import RandomSearch
from edgemeta.space.space import Space

if TYPE_CHECKING:
    from edgemeta.search.bilevel import Bilevel
    from edgemeta.search.problem import Problem

__all__ = ["BY_GRADIENT", "KNOWN", "LOOKING", "PLANNING", "SEARCHERS", "plan", "searcher"]


def _enas(space: Space, *, seed: int, **settings: Any) -> Searcher:
    from edgemeta.search.enas import Enas  # torch takes seconds, which a list of names need not wait for

    return Enas(space, seed=seed, **settings)


def _darts(space: Space, *, seed: int, problem: Problem, settings: Bilevel | None = None, order: int = 1) -> Searcher:
    from edgemeta.search.bilevel import Bilevel  # as above
    from edgemeta.search.darts import Darts

    return Darts(space, seed=seed, problem=problem, settings=settings or Bilevel(order=order))


def _joint(space: Space, *, seed: int, problem: Problem, **settings: Any) -> Searcher:
    from edgemeta.search.joint import JointSearch  # as above

    return JointSearch(space, seed=seed, problem=problem, **settings)


def _metapolicy(space: Space, *, seed: int, problem: Problem | None = None, **settings: Any) -> Searcher:
    from edgemeta.search import knowledge  # as above
    from edgemeta.search.meta_searcher import MetaPolicy

    if problem is None or (known := knowledge.known(space)) is None:
        return MetaPolicy(space, seed=seed, **settings)
    return MetaPolicy(space, seed=seed, knowledge=known, triple=knowledge.triple(known, problem), **settings)


def _optuna(space: Space, *, sampler: str, seed: int, **settings: Any) -> Searcher:
    from edgemeta.search.optuna_samplers import OptunaSearch  # as above

    return OptunaSearch(space, sampler=sampler, seed=seed, **settings)


SEARCHERS: dict[str, Callable[..., Searcher]] = {  # name -> (space, *, seed, **settings) -> searcher
    "random": RandomSearch,
    "evolution": Evolution,
    "metaqnn": MetaQNN,
    "enas": _enas,
    "tpe": partial(_optuna, sampler="tpe"),
    "nsga2": partial(_optuna, sampler="nsga2"),
    "gp": partial(_optuna, sampler="gp"),
    "metapolicy": _metapolicy,
}
# Those that learn from the data themselves: (space, *, seed, problem, **settings) -> searcher.
BY_GRADIENT: dict[str, Callable[..., Searcher]] = {
    "darts": _darts,
    "darts2": partial(_darts, order=2),
    "joint": _joint,
}
KNOWN = SEARCHERS | BY_GRADIENT
LOOKING = {*BY_GRADIENT, "metapolicy"}  # take the problem as well: data, device and caps
PLANNING = {"metaqnn"}  # take the number of networks that are to be trained


def searcher(name: str, problem: Problem, *, seed: int, trials: int) -> Searcher:
    """The searcher of that name for a problem, of which `trials` networks are to be trained."""
    asked = {"problem": problem} if name in LOOKING else {}
    return KNOWN[name](problem.space, seed=seed, **asked, **plan(name, trials))


def plan(name: str, trials: int) -> dict[str, Any]:
    """The settings of a searcher that follow from how many networks are to be trained."""
    return {"trials": trials} if name in PLANNING else {}
