"""A run folder: where everything a run made is kept, and what a later command picks up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemeta.errors import EdgemetaError
from edgemeta.files import write_json


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its notes: one small JSON file per stage, each written whole or not at all."""

    root: Path

    def profile(self, space: str) -> Path:
        """The host's profile for a space: another space has other operators."""
        return self.root / f"profile-{space}.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def note(self, name: str, content: Any) -> None:
        """Keep `content` (JSON types) under a name."""
        write_json(self.root / f"{name}.json", content)

    def read(self, name: str) -> Any:
        """The note of that name, or None where no stage has written it."""
        path = self.root / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EdgemetaError(
                f"cannot read {path}: {error}; delete it and run the command that wrote it again"
            ) from error

    def need(self, name: str, command: str) -> Any:
        """The note of that name; an error that names the command to run first where there is none."""
        content = self.read(name)
        if content is None:
            raise EdgemetaError(f"{self.root} has no {name} yet; run `edgemeta {command} --run {self.root}` first")
        return content

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the seconds of a stage, for the report."""
        began = time.perf_counter()
        yield
        stages = self.read("stages") or {}
        self.note("stages", stages | {name: round(time.perf_counter() - began, 2)})
