"""Timings that somebody took by hand, as a profile: a CSV or JSON file of architectures and milliseconds."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgemeta.errors import BadConfig, BadProfile
from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Profile, Timing

from . import checks

RUNTIME = "timed by hand"
MAX_BYTES = 16 * 2**20
NEXT = 'write lines of `arch,ms` as CSV under that heading, or {"arch": ms} as JSON'


def read(path: Path, space: Space, device: str, *, threads: int = 1, precision: str = "fp32") -> Profile:
    """The profile of `device` with the timings of `path`; an architecture is its picks, "1.0.2", or as it prints."""
    nets = [_net(name, ms, space, path) for name, ms in _rows(path)]
    checks.check_nets(nets, str(path))
    nets = list(checks.one_each(nets))
    doubts = checks.check_unit([(net.ops, net.timing.median_ms) for net in nets], str(path))
    return Profile(
        device=device,
        runtime=RUNTIME,
        versions={},
        threads=threads,
        precision=precision,
        batch=1,
        measured_on=datetime.date.today().isoformat(),
        cpu="unknown",
        governor="unknown",
        synthetic=False,
        overhead={},
        ops={},
        nets=tuple(nets),
        doubts=(*doubts, *checks.clock_doubts([net.timing.median_ms for net in nets])),
        source=f"{path.name}, imported",
    )


def _net(name: str, value: Any, space: Space, path: Path) -> NetTiming:
    arch = _arch(name, space, path)
    ms = checks.value_ms(value, f"{path}: {arch}")
    try:
        return NetTiming(arch, Timing(ms, 0.0, 1), space.ops(arch))
    except BadConfig as error:
        raise BadProfile(f"{path}: {error}; correct it, or name its space with --space and --in-shape") from None


def _arch(name: str, space: Space, path: Path) -> Arch:
    try:
        return Arch.parse(name, space.name)
    except ValueError:
        raise BadProfile(f"{path}: {name[:60]!r} is no architecture; {NEXT}, picks joined by dots") from None


def _rows(path: Path) -> list[tuple[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadProfile(f"{path} has more than {MAX_BYTES // 2**20} MiB; {NEXT}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadProfile(f"cannot read {path}: {error.strerror}; {NEXT}") from error
    except UnicodeDecodeError:
        raise BadProfile(f"{path} is not text; {NEXT}") from None
    if text.lstrip().startswith(("{", "[")):
        return _from_json(text, path)
    return list(_from_csv(text, path))


def _from_json(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=checks.unique_keys)
    except BadProfile as error:
        raise BadProfile(f"{path} {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadProfile(f"{path} is not whole JSON: {error}; {NEXT}") from None
    if not isinstance(found, dict):
        raise BadProfile(f"{path} holds no object; {NEXT}")
    return list(found.items())


def _from_csv(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    heads = [cell.strip().lower() for cell in rows[0]] if rows else []
    if len(heads) != 2 or heads[0] != "arch":
        raise BadProfile(f"{path} has the heading {','.join(heads)[:60]!r}; {NEXT}")
    if heads[1] != "ms" and not heads[1].endswith("_ms"):
        raise BadProfile(f"{path}: times under {heads[1]!r} may not be milliseconds; convert them, name them `ms`")
    for number, row in enumerate(rows[1:], start=2):
        try:
            name, value = row
            yield name, float(value)
        except ValueError:
            raise BadProfile(f"{path}: row {number} is {','.join(row)[:60]!r}; {NEXT}") from None
