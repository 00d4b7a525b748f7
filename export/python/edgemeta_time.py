#!/usr/bin/env python3
"""Time the graphs of an edgemeta bundle on this device. Needs numpy and onnxruntime, and edgemeta_profile.py beside it.

    python3 edgemeta_time.py FOLDER --out timings.json --seconds 1

FOLDER holds the graphs, `feeds.npz` with what each is fed, and `plan.json`; export/README.md specifies both and the
answer. A graph that cannot run here is an answer, too: it says why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import edgemeta_profile as profile

FORMAT = 1
CHUNK, TELL_EVERY_S = 5, 0.2
WARM_S = (0.05, 0.5)  # at least and at most, before a graph is timed


def read_plan(folder: Path) -> dict[str, Any]:
    """Which graphs to time and how, as plan.json says."""
    try:
        plan = json.loads((folder / "plan.json").read_text())
        if plan["format"] != FORMAT:
            raise profile.KitError(f"{folder / 'plan.json'} is of format {plan['format']}, not {FORMAT}")
        return {name: plan[name] for name in ("graphs", "threads", "min_repeats", "max_repeats")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise profile.KitError(f"{folder / 'plan.json'} is missing or damaged; send the bundle again") from error


def read_feeds(folder: Path, graphs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Graph -> its inputs."""
    feeds: dict[str, dict[str, Any]] = {graph: {} for graph in graphs}
    with profile.np.load(folder / "feeds.npz", allow_pickle=False) as arrays:
        for name in arrays.files:
            graph, _, given = name.partition(".")
            feeds[graph][given] = arrays[name]
    return feeds


class Teller:
    """`progress` lines, so that who waits knows that the device is there."""

    def __init__(self, total: int):
        self.done, self.total, self.told = 0, total, 0.0

    def tell(self, always: bool = False) -> None:
        if always or time.perf_counter() - self.told >= TELL_EVERY_S:
            profile.tell(self.done, self.total)
            self.told = time.perf_counter()


def timed(session: Any, feeds: Mapping[str, Any], plan: Mapping[str, Any], seconds: float, teller: Teller) -> dict:
    """Median and quartile distance of a graph's runs, once it is warm."""
    profile.warm_up(session, feeds, *WARM_S)
    taken: list[float] = []
    begin = time.perf_counter()
    least, most = plan["min_repeats"], plan["max_repeats"]
    while len(taken) < least or (len(taken) < most and time.perf_counter() - begin < seconds):
        taken += profile.runs(session, feeds, CHUNK)
        teller.tell()
    low, middle, high = profile.np.quantile(taken, (0.25, 0.5, 0.75))
    return {"median_ms": float(middle), "iqr_ms": float(high - low), "n": len(taken)}


def answer(folder: Path, seconds: float) -> dict[str, Any]:
    """Timings of every graph and what they were taken on, or why one does not run here."""
    plan = read_plan(folder)
    teller, found = Teller(len(plan["graphs"])), {}
    feeds = read_feeds(folder, list(plan["graphs"]))
    for graph, file in plan["graphs"].items():
        teller.tell(always=True)
        try:
            session = profile.open_model(folder / file, plan["threads"])
            found[f"{graph}_ms"] = timed(session, feeds[graph], plan, seconds, teller)
        except BrokenPipeError:
            raise
        except Exception as error:  # ONNX Runtime raises classes of its own
            return {"format": FORMAT, "failed": f"{graph}: {profile.one_line(error)}"}
        teller.done += 1
    teller.tell(always=True)
    runtime = f"{profile.RUNTIME} {profile.onnxruntime.__version__}"
    about = {"threads": plan["threads"], "runtime": runtime, "device": profile.cpu()}
    return {"format": FORMAT, "measured": {**found, **about, "measured_on": date.today().isoformat()}}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time the graphs of an edgemeta bundle on this device.")
    parser.add_argument("folder", type=Path, help="graphs, feeds.npz and plan.json")
    parser.add_argument("--out", type=Path, required=True, help="where the answer goes")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each graph, once it is warm")
    args = parser.parse_args(argv)
    try:
        read_plan(args.folder)
        with profile.alone(args.folder):
            args.out.write_text(json.dumps(answer(args.folder, args.seconds)))
    except BrokenPipeError:  # nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return profile.INTERRUPTED
    except profile.KitError as error:
        sys.stderr.write(f"{profile.one_line(error)}\n")
        return 2
    except Exception as error:  # a full disk, feeds that are damaged: one line all the same
        sys.stderr.write(f"timing {args.folder} failed: {type(error).__name__}: {profile.one_line(error)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
