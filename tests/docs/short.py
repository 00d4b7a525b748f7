"""The commands of a page, made short: the same road with few networks, few episodes and a looser cap on latency.

Caps on latency are loosened because a machine that runs tests is busy; every other flag stays as the page has it.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemeta import cli, config
from edgemeta.errors import EdgemetaError, flag

# What a command is given where the page says nothing, and at most where it does.
MOST: dict[str, dict[str, Any]] = {
    "profile": {"nets": 1, "seconds": 4},
    "search": {"trials": 2, "eval_episodes": 10},
    "train": {"episodes": 20, "test_episodes": 10},
    "demo": {},
}
ALWAYS: dict[str, list[str]] = {
    "search": ["--rungs", "4,8"],
    "demo": ["--quick"],
}
AT_MOST = {"front": 2, "workers": 2}  # only where the page says so
LOOSER = 20


def main(argv: list[str]) -> int:
    """As `edgemeta` does it, shorter. What is wrong, or is meant to be, is left to `edgemeta`."""
    command, given = _given(argv)
    if command is None or os.environ["EDGEMETA_DOCS"] == "wrong":
        return as_it_stands(argv)
    if command in ("search", "train") and given.get("device", config.HOST) == config.HOST:
        _profile_first(given)
    return as_it_stands([*argv, *added(command, given)])


def as_it_stands(argv: list[str]) -> int:
    return cli.main(argv)


def added(command: str, given: dict[str, Any]) -> list[str]:
    """Flags that follow the page's own, and so win."""
    most = MOST.get(command, {})
    values = {name: min(given.get(name, value), value, key=float) for name, value in most.items()}
    values |= {name: value for name, value in AT_MOST.items() if float(given.get(name, 0)) > value}
    if 1e-3 < float(given.get("latency_ms", math.inf)) < math.inf:
        values["latency_ms"] = LOOSER * float(given["latency_ms"])
    flags = [part for name, value in values.items() for part in (flag(name), str(value))]
    quiet = ["--no-progress"] if "progress" in config.names(cli.COMMANDS[command]) else []
    return [*flags, *ALWAYS.get(command, []), *quiet]


def _given(argv: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The command, and its settings by file and flags; nothing where it is no command."""
    if not argv or {"-h", "--help", "--version"} & set(argv):
        return None, {}
    try:
        flags = vars(cli._parser(show_choices=False).parse_args(cli.joined(argv)))
        command, toml = flags.pop("command"), flags.pop("config", None)
        return command, (config.read_toml(toml, command, cli.COMMANDS) if toml and command else {}) | flags
    except (SystemExit, EdgemetaError):
        return None, {}


def _profile_first(given: dict[str, Any]) -> None:
    """This machine, timed for seconds and once for all pages; a search would take its minute."""
    space, run = given.get("space", "edge"), Path(given.get("run", "runs/edge"))
    shape = given.get("in_shape", config.Search.in_shape)
    from edgemeta.space.presets import SPACES
    from edgemeta.stages.run_folder import RunFolder

    name = SPACES[space](tuple(int(size) for size in shape)).name
    path = RunFolder(run).profile(name)
    kept = Path(os.environ["EDGEMETA_DOCS_SHARED"]) / path.name
    if path.exists() or (run / "search.json").exists():
        return
    if not kept.exists():
        own = ["--space", space, "--in-shape", ",".join(map(str, shape)), "--run", str(kept.parent / "profiles")]
        if as_it_stands(["profile", *own, *added("profile", {})]):
            return
        shutil.copy(RunFolder(kept.parent / "profiles").profile(name), kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(kept, path)


def training(function: Callable[..., Any], most: int = 8) -> Callable[..., Any]:
    """`edgemeta.learners.train.train` with at most so many episodes."""
    from dataclasses import replace

    def train(learner: Any, slow: Any, pools: Any, training: Any, **rest: Any) -> Any:
        return function(learner, slow, pools, replace(training, episodes=min(training.episodes, most)), **rest)

    return train


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
