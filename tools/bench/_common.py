"""What every benchmark shares: its options, its table on the screen and its JSON on disk.

A benchmark is a script of one published table:

    args = parser("Predicted against measured latency on this machine.", quick={"nets": 20})
    ...
    sys.exit(emit("host_latency", {"spearman": 0.99}, rows, args.json, goals=args.goals, quick=args.quick))
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import math
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from edgemeta.errors import BadConfig
from edgemeta.files import write_json
from edgemeta.latency.machine import cpu
from edgemeta.report.tables import table

PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
COMPARE = {"<=": operator.le, ">=": operator.ge}
_ROOT = Path(__file__).resolve().parents[2]


class Verdict(NamedTuple):
    """One value against its goal."""

    name: str
    value: float | None  # None where the benchmark gave no such value
    goal: str  # e.g. ">= 0.99"
    met: bool


def parser(description: str, *, quick: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The options every benchmark has; add your own to it. quick: those that `--quick` sets, and what to."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write values, rows and circumstances here")
    made.add_argument("--goals", type=Path, metavar="FILE", help='{"bench": {"value": ["<=", number]}} to compare with')
    shorter = partial(_Quick, settings=quick)
    told = f"shortened: the same as {spoken(quick)}; later options count"
    made.add_argument("--quick", action=shorter, help=told)  # type: ignore[arg-type]
    return made


def spoken(settings: Mapping[str, Any]) -> str:
    """Settings as the options that they are; True is an option without a value."""
    told = {name: value if isinstance(value, (list, tuple)) else [value] for name, value in settings.items()}
    words = [[f"--{name.replace('_', '-')}", *(each for each in own if each is not True)] for name, own in told.items()]
    return " ".join(str(word) for option in words for word in option)


class _Quick(argparse.Action):
    """Sets other options at once, and tells which in `quick`, where a full run has ""."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, settings: Mapping[str, Any], **how: Any):
        super().__init__(option_strings, dest, nargs=0, default="", **how)
        self._settings = settings

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        if unknown := set(self._settings) - set(vars(namespace)):
            raise ValueError(f"--quick sets what is no option: {', '.join(sorted(unknown))}")
        vars(namespace).update(self._settings)
        setattr(namespace, self.dest, spoken(self._settings))


def require_folder(data_root: Path, name: str) -> None:
    """End with a line where the data that a benchmark reads is not there."""
    if not (data_root / name).is_dir():
        sys.exit(f"no {name}/ below {data_root}; name the folder that holds it with --data-root")


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """JSON that was made before, or is made now and kept: a benchmark that was killed goes on."""
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text(encoding="utf-8"))


def digest(*what: Any) -> str:
    """A short name, equal for what is written equally."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:8]


def emit(
    name: str,
    values: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
    json_path: Path | None = None,
    extra: Mapping[str, Any] | None = None,
    *,
    goals: Path | None = None,
    quick: str = "",
) -> int:
    """Print the rows and values, write them with their circumstances, and return the exit code: 1 for a missed goal.

    name: that of the script. values: the published numbers. rows: the table behind them. extra: anything else worth
    keeping (settings, seeds). quick: how the run was shortened; goals are for full ones, and not held against it.
    """
    numbers = {key: _number(key, value) for key, value in values.items()}
    if rows:
        print(table(rows), end="\n\n")
    verdicts = verdict(name, numbers, read_goals(goals) if goals and not quick else {})
    print(table(_summary(numbers, verdicts)))
    if quick:
        print(f"\nshortened, not comparable: {quick}")
    if json_path:
        plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
        record = {
            "name": name,
            "quick": quick,
            "values": numbers,
            "rows": plain,
            **circumstances(),
            "extra": dict(extra or {}),
        }
        print(f"\nwritten to {write_json(json_path, record)}")
    return 0 if all(row.met for row in verdicts) else 1


def read_goals(path: Path) -> dict[str, dict[str, tuple[str, float]]]:
    """Goals by benchmark and value; keys starting with "_" are remarks."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {
            bench: {value: (_comparison(sign), _number(value, goal)) for value, (sign, goal) in goals.items()}
            for bench, goals in raw.items()
            if not bench.startswith("_")
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadConfig(
            f'cannot read goals from {path}: {error}; expected {{"bench": {{"value": ["<=", 1]}}}}'
        ) from error


def verdict(name: str, values: Mapping[str, float], goals: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """Each goal of benchmark `name` against its value; a goal without a value is not met."""
    return [
        Verdict(key, values.get(key), f"{sign} {goal:g}", key in values and COMPARE[sign](values[key], goal))
        for key, (sign, goal) in goals.get(name, {}).items()
    ]


def circumstances() -> dict[str, Any]:
    """What a number means nothing without: commit, date, versions, CPU and threads."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain")),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": {setting: os.environ.get(setting, "unset") for setting in THREAD_SETTINGS},
    }


def _summary(values: Mapping[str, float], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    against = {row.name: row for row in verdicts}
    names = list(dict.fromkeys([*values, *against]))
    if not against:
        return [{"value": name, "result": values[name]} for name in names]
    return [
        {
            "value": name,
            "result": values.get(name, "missing"),
            "goal": against[name].goal if name in against else "",
            "met": ("yes" if against[name].met else "NO") if name in against else "",
        }
        for name in names
    ]


def _comparison(sign: Any) -> str:
    if sign not in COMPARE:
        raise ValueError(f"unknown comparison {sign!r}")
    return sign


def _number(name: str, value: Any) -> float:
    plain = _plain(value)
    if not _is_number(plain) or not math.isfinite(plain):
        raise ValueError(f"{name} = {value!r} is not a finite number")
    return plain


def _plain(value: Any) -> Any:
    """numpy and torch scalars as Python ones, which JSON can hold."""
    return value.item() if hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(_plain(value), (int, float)) and not isinstance(_plain(value), bool)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
