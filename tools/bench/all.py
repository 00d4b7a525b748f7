"""Every benchmark with one command, every table from what is stored, and a comparison of both.

    python tools/bench/all.py --quick                       # all, shortened: that everything runs
    python tools/bench/all.py --only meta_speed,omniglot    # these, as they are published; without --only all of them
    python tools/bench/all.py --stored                      # draws the tables of README.md and docs/ from results/
    python tools/bench/all.py --compare runs/bench/full     # beside what is stored; exit code 1 if worse

Results come as JSON into `--out`, beside `tables.md` with the same tables as the docs. What is done there is not done
again: the same command goes on where it was. A benchmark that fails does not stop the others; one whose data, peer or
server is not here is left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from _benches import BENCHES, Bench, lacking
from _common import THREAD_SETTINGS
from _compare import compared
from _tables import TABLES, drawn, placed, read

from edgemeta.files import write_text
from edgemeta.report.tables import table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, PAGES = HERE / "results", ("README.md", "README.zh-CN.md", "docs/*.md")
QUICK_MOST_S = 600.0  # for a shortened benchmark
NOT_DRAWN = "Could not be drawn"
SHORTENED = "Shortened: not comparable with any published number, nor with a run that was shortened in another way."


class Outcome(NamedTuple):
    name: str
    told: str
    failed: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    if args.stored:
        changed = redraw(ROOT)
        print("\n".join(f"drawn anew: {path}" for path in changed) or "every table is as it was")
        return 0
    if args.compare:
        return compare(args.compare, args.against, args.only)
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for place, name in enumerate(args.only, 1):
        print(f"{place}/{len(args.only)} {name} ...", end=" ", flush=True)
        outcomes.append(run(name, BENCHES[name], args))
        print(outcomes[-1].told, flush=True)
        write_text(args.out / "tables.md", text := page(args.out, outcomes, args.only))
    print(f"tables: {args.out / 'tables.md'}")
    return 1 if any(outcome.failed for outcome in outcomes) or NOT_DRAWN in text else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = options.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="every benchmark shortened, in minutes")
    what.add_argument("--stored", action="store_true", help="draw the tables of README.md and docs/, run nothing")
    what.add_argument("--compare", type=Path, metavar="PATH", help="a result or a folder of them, to compare")
    options.add_argument("--against", type=Path, default=RESULTS, metavar="DIR", help="results to compare with")
    options.add_argument("--only", type=_names, default=list(BENCHES), metavar="NAME,...", help="some of them")
    options.add_argument("--out", type=Path, help="folder of results (default: runs/bench/quick or runs/bench/full)")
    options.add_argument("--again", action="store_true", help="run what is done, too")
    options.add_argument("--goals", type=Path, help="compare full runs with these goals; a missed one is a failure")
    root = ROOT.parent / "shared" / "data"
    options.add_argument("--data-root", type=Path, default=root, help="folder of real data sets")
    args = options.parse_args(argv)
    args.out = (args.out or Path("runs/bench") / ("quick" if args.quick else "full")).resolve()
    return args


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in BENCHES]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return names


def run(name: str, bench: Bench, args: argparse.Namespace) -> Outcome:
    """One benchmark, in a process of its own."""
    path = args.out / f"{name}.json"
    if path.exists() and not args.again:
        return Outcome(name, f"done before, at {json.loads(path.read_text(encoding='utf-8'))['date'][:16]}")
    if args.quick and not bench.quick:
        return Outcome(name, f"left out: shortened, {bench.script} has run already")
    if reason := lacking(bench, args.data_root):
        return Outcome(name, f"left out: {reason}")
    path.unlink(missing_ok=True)
    log, began, before_s = args.out / f"{name}.log", time.perf_counter(), _processor_s()
    with log.open("wb") as told:
        code = _finished(command(bench, path, args), told, QUICK_MOST_S if args.quick else None)
    spent = f"{time.perf_counter() - began:.0f} s, {_processor_s() - before_s:.0f} s of processors"
    if path.exists():
        return Outcome(name, f"{spent}{'; a goal is missed' if code else ''}", bool(code))
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
    return Outcome(name, f"FAILED after {spent}: {last[:200]}", failed=True)


def command(bench: Bench, path: Path, args: argparse.Namespace) -> list[str]:
    options = (["--quick"] if args.quick else bench.options.split()) + bench.part.split()
    options += ["--data-root", str(args.data_root.resolve())] if bench.data else []
    options += ["--run", str(args.out / "kept" / path.stem)] if bench.keeps else []
    options += ["--goals", str(args.goals.resolve())] if args.goals else []
    return [sys.executable, str(HERE / bench.script), *options, "--json", str(path)]


def _finished(command: list[str], log: object, most_s: float | None) -> int:
    """Exit code of a command with one thread a process, if nothing else is set; what takes too long is ended."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = dict.fromkeys(THREAD_SETTINGS, "1") | os.environ | {"PYTHONPATH": paths}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # type: ignore[call-overload]
    )
    try:
        return process.wait(most_s)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        if process.poll() is None:  # too long, or interrupted: its workers, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def page(folder: Path, outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    """Every table that the results of a folder have, and how each benchmark ended."""
    records = {name: record for name, record in read(folder).items() if name in BENCHES}
    short = [f"- `{name}`: {record['quick']}" for name, record in records.items() if record.get("quick")]
    lines = ["# Benchmarks", ""] + ([SHORTENED, "", *short, ""] if short else [])
    lines += [f"- {outcome.name}: {outcome.told}" for outcome in outcomes]
    lines += [f"- {name}: not begun" for name in names[len(outcomes) :]]
    for name in TABLES:
        try:
            made = drawn(records, [name])
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            made = {name: f"{NOT_DRAWN}: {type(error).__name__} {error}"}
        lines += [line for text in made.values() for line in ("", f"## {name}", "", text)]
    return "\n".join(lines) + "\n"


def redraw(root: Path) -> list[Path]:
    """Write the stored tables into the pages; returns those that changed."""
    made, changed = dict.fromkeys(TABLES, "") | drawn(read(RESULTS)), []
    for path in (path for pattern in PAGES for path in sorted(root.glob(pattern))):
        old = path.read_text(encoding="utf-8")
        if (new := placed(old, made)) != old:
            write_text(path, new)
            changed.append(path)
    return changed


def compare(path: Path, against: Path, names: Sequence[str]) -> int:
    """Print what changed; 1 where something is worse than its tolerance, or nothing could be compared."""
    if not path.exists():
        sys.exit(f"no {path}; name a result, or a folder of results, of `all.py` or of a benchmark's --json")
    found = read(path) if path.is_dir() else {_name(path): json.loads(path.read_text(encoding="utf-8"))}
    stored = read(against)
    both = [name for name in names if name in found and name in stored]
    if not both:
        sys.exit(f"no result of {path} is in {against}, too; there are {', '.join(stored) or 'none'}")
    rows = [row for name in both for row in compared(name, stored[name], found[name])]
    shown = [row for row in rows if row["worse"] != "not judged"]
    print(table(shown, ("benchmark", "value", "stored", "now", "change", "allowed", "worse")))
    worse = sum(row["worse"].startswith("YES") for row in rows)
    judged = sum(row["worse"] == "no" for row in rows) + worse
    print(f"\n{worse} of {judged} values that have a tolerance are worse than it allows")
    return 1 if worse or not judged else 0


def _name(path: Path) -> str:
    return path.stem if path.stem in BENCHES else json.loads(path.read_text(encoding="utf-8"))["name"]


if __name__ == "__main__":
    sys.exit(main())
