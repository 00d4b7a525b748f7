"""Every benchmark: its script, the options of the run whose result is stored, and what it needs.

`results/NAME.json` is the result of NAME. A script may stand here twice, for two of its tables.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

OMNIGLOT = "--arch deep --also-val --minutes 20 --jobs 2"
NB201 = ("help", "nb201_accuracy")


class Bench(NamedTuple):
    script: str
    options: str = ""  # of the full run
    part: str = ""  # options of the shortened run, too
    data: tuple[str, ...] = ()  # folders below the data root
    modules: tuple[str, ...] = ()
    keeps: bool = False  # what is done, in a folder of its own (`--run`)
    quick: bool = True  # False: another row's script, and nothing new when it is shortened
    server: bool = False  # a PostgreSQL of its own


BENCHES: Mapping[str, Bench] = {
    "end_to_end": Bench("end_to_end.py"),
    "first_bundle": Bench("first_bundle.py"),
    "latency_speed": Bench("latency_speed.py"),
    "host_latency": Bench("host_latency.py"),
    "unseen_device": Bench("unseen_device.py", data=("help",)),
    "meta_speed": Bench("meta_speed.py", modules=("higher", "torchopt")),
    "omniglot": Bench("omniglot.py", f"--all {OMNIGLOT}", data=("omniglot",)),
    "omniglot_deep": Bench(
        "omniglot.py", f"--learners protonet ridge --episodes 5000 {OMNIGLOT}", data=("omniglot",), quick=False
    ),
    "edge_front": Bench("edge_front.py", "--jobs 2", data=("omniglot",), keeps=True),
    "supernet_rank": Bench(
        "supernet_rank.py", "--minutes 1 --supernet-minutes 20 --jobs 2", data=("omniglot",), keeps=True
    ),
    "darts_cells": Bench("darts_cells.py", "--episodes 300", data=("omniglot",), keeps=True),
    "joint": Bench("joint.py", data=("omniglot",)),
    "initializer": Bench("initializer.py"),
    "first_proposal": Bench("first_proposal.py"),
    "constrained_search": Bench("constrained_search.py", "--queries 60", data=NB201),
    "search_macro": Bench("search_macro.py", data=("nas_bench_macro",)),
    "device_runtime": Bench("device_runtime.py"),
    "learn_on_device": Bench("learn_on_device.py", "--jobs 2"),
    "learner_cost": Bench("learner_cost.py"),
    "kill_test": Bench("kill_test.py", "--kills 100"),
    "fuzz": Bench("fuzz.py", "--inputs 100000"),
    "scale": Bench("scale.py", part="--only search ask", modules=("psycopg",), server=True),
    "scale_growth": Bench("scale.py", part="--only ledger training"),
    "torchrun_speed": Bench("torchrun_speed.py"),
}


def lacking(bench: Bench, data_root: Path) -> str:
    """Why a benchmark cannot run here; "" where it can."""
    if absent := [name for name in bench.data if not (data_root / name).is_dir()]:
        return f"no {absent[0]}/ below {data_root}; name the folder that holds it with --data-root"
    if absent := [name for name in bench.modules if importlib.util.find_spec(name) is None]:
        return f"{', '.join(absent)} not installed; pip install -e '.[bench,postgresql]'"
    if bench.server and not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        return "PostgreSQL is not installed; make system-deps"
    return ""
