"""Where the processes that torchrun started meet, apart from those it had started before."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from edgemeta.errors import EdgemetaError
from edgemeta.processes import Place

PATIENCE_S = 600.0  # for the last process to come: one may have to import torch from a slow disk
POLL_S = 0.02
ROUND = "edgemeta/round"


def met(here: Place) -> Store:
    """A store that the processes of this start share, and none of an earlier start has written to.

    After a restart torchrun hands out the store of the first start, with the addresses of processes that are dead.
    """
    store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(seconds=PATIENCE_S))))
    return PrefixStore(round_of(store, here.rank, here.world), store)


def round_of(store: Store, rank: int, world: int, patience_s: float = PATIENCE_S) -> str:
    """A name for this start: the one that the first process has just made up, on all of them.

    What is in the store may be left over. So the others trust a name that comes with the word that each has just made
    up itself, and the first waits until all of them have answered below the new name.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + patience_s
    if rank:
        store.set(f"edgemeta/here/{rank}", word)
        while time.monotonic() < end:
            if store.check([ROUND]):
                name, heard = json.loads(store.get(ROUND))
                if heard.get(str(rank)) == word:
                    store.set(f"{name}/there/{rank}", "")
                    return name
            time.sleep(POLL_S)
        raise _alone(1, world, patience_s)
    others, last = range(1, world), None
    while time.monotonic() < end:
        keys = {str(other): f"edgemeta/here/{other}" for other in others}
        heard = {other: store.get(key).decode() for other, key in keys.items() if store.check([key])}
        if heard != last:
            store.set(ROUND, json.dumps([word, heard]))
            last = heard
        there = [store.check([f"{word}/there/{other}"]) for other in others]
        if all(there):
            return word
        time.sleep(POLL_S)
    raise _alone(1 + sum(there), world, patience_s)


def _alone(came: int, world: int, patience_s: float) -> EdgemetaError:
    return EdgemetaError(
        f"{came} of {world} processes came within {patience_s:g} s; see what the others say, and start all again"
    )
