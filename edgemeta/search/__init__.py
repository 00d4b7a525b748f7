"""Searchers, the loop that runs them under a budget, and the ledger that remembers every trial."""

from collections.abc import Callable

from edgemeta.contracts import Searcher
from edgemeta.search.evolution import Evolution
from edgemeta.search.random_search import RandomSearch

SEARCHERS: dict[str, Callable[..., Searcher]] = {
    "random": RandomSearch,
    "evolution": Evolution,
}
