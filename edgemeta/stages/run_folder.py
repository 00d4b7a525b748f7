"""A run folder: where everything a run made is kept, and what a later command picks up."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemeta.errors import EdgemetaError
from edgemeta.files import write_json

HOLDS: dict[str, tuple[str, ...]] = {
    "search": ("config", "command", "data", "ranking", "winner", "refused", "infeasible"),
    "train": ("picks", "weights", "episodes", "tests", "winner", "data"),
    "stages": (),
}  # what every reader of a note relies on


_HELD: set[str] = set()  # run folders that this process has locked
_SPENT: dict[tuple[str, str], float] = {}  # (run folder, stage) -> seconds


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its notes: one small JSON file per stage, each written whole or not at all."""

    root: Path

    def profile(self, space: str) -> Path:
        """The host's profile for a space: another space has other operators."""
        return self.root / f"profile-{space}.json"

    def shared_profile(self, space: str) -> Path:
        """What `host` is in a search of several machines."""
        return self.root / f"profile-{space}-shared.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    def weights_at(self, noted: str) -> Path:
        """Weights that a note names, wherever the run folder has been moved or is seen from."""
        return self.weights / Path(noted).name

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def front(self) -> Path:
        """A bundle for each of several latency caps."""
        return self.root / "front"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def note(self, name: str, content: Any) -> None:
        """Keep `content` (JSON types) under a name."""
        write_json(self.root / f"{name}.json", content)

    def read(self, name: str) -> Any:
        """The note of that name, or None where no stage has written it."""
        path = self.root / f"{name}.json"
        advice = "delete it and run the command that wrote it again"
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise EdgemetaError(f"{self.root} is a file; name a folder with --run") from error
        except (OSError, ValueError, RecursionError) as error:
            raise EdgemetaError(f"cannot read {path}: {error}; {advice}") from error
        if name in HOLDS and (lacks := _lacks(content, HOLDS[name])):
            raise EdgemetaError(f"{path} {lacks}: damaged, or of another version; {advice}")
        return content

    def need(self, name: str, command: str) -> Any:
        """The note of that name; an error that names the command to run first where there is none."""
        content = self.read(name)
        if content is None:
            raise EdgemetaError(f"{self.root} has no {name} yet; run `edgemeta {command} --run {self.root}` first")
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes' commands out of the run folder; the kernel lets go however this one ends."""
        key = str(self.root.resolve())
        if key in _HELD:
            yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise EdgemetaError(f"cannot write in {self.root}: {error.strerror}; choose another --run") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _HELD.add(key)
            self._sweep()
            yield
        except BlockingIOError as error:
            raise EdgemetaError(
                f"another edgemeta works in {self.root}; wait for it, or choose another --run"
            ) from error
        finally:
            _HELD.discard(key)
            os.close(handle)

    def _sweep(self) -> None:
        """Remove what killed commands were writing; nobody else writes here while this process holds the lock."""
        for left in (*self.root.glob(".*.tmp"), *self.weights.glob(".*.tmp")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the seconds that this process spent in a stage, for the report."""
        began, key = time.perf_counter(), (str(self.root.resolve()), name)
        yield
        _SPENT[key] = _SPENT.get(key, 0.0) + time.perf_counter() - began
        self.note("stages", (self.read("stages") or {}) | {name: round(_SPENT[key], 2)})


def _lacks(content: Any, keys: tuple[str, ...]) -> str:
    """What a note misses; empty where nothing."""
    if not isinstance(content, dict):
        return "holds no settings"
    return next((f"has no {key!r}" for key in keys if key not in content), "")
