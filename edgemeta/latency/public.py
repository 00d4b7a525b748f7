"""Public latency tables as profiles, so that one can search for a device one does not own."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgemeta.data.archive import DAMAGED, read_arrays
from edgemeta.errors import BadProfile, nearest
from edgemeta.space.blocks import OFA_LAYERS, OFA_STAGES
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch, NetTiming, Profile, Timing

from . import checks

RUNTIME = "published"
MAX_BYTES = 256 * 2**20  # unpacked; the largest public table has a tenth
PUBLISHED_ON = "2021-06-16"  # of HELP; the timings are no younger
UNKNOWN = "threads, clock and spread are not published"
NEXT = "give an unchanged file in the layout of HELP's tables (profiles/README.md)"
_BATCH = re.compile(r"_(\d{1,3})$")  # silver_4114 is a processor, titan_rtx_64 a batch of 64
_HELP = "collected by HELP (Lee 2021, arXiv:2106.08630; MIT licence)"
Arrays = Mapping[str, np.ndarray]
Slots = Sequence[tuple[Any, ...]]  # the options of each slot


class Layout(NamedTuple):
    """How a table names its networks: arrays beside `latency_ms` (devices, nets) and `devices`, and what they hold."""

    space: str
    arrays: tuple[str, ...]
    values: Callable[[Arrays], Sequence[Sequence[Any]]]  # of each network, the option in each slot
    source: str


def _options(space: str) -> Slots:
    return [options for _, options in PUBLISHED[space]().slots]


def _nb201(arrays: Arrays) -> Sequence[Sequence[Any]]:
    """`|nor_conv_3x3~0|+|none~0|...`: an operator and the node it reads, edge after edge."""
    return [re.findall(r"\|?([^|+~]+)~\d", str(text)) for text in arrays["arch_str"]]


def _fbnet(arrays: Arrays) -> Sequence[Sequence[Any]]:
    index, names = arrays["op_idx"], [str(name) for name in arrays["op_names"]]
    if index.dtype.kind not in "iu" or not set(index.flat) <= set(range(len(names))):
        raise BadProfile(f"op_idx points past the {len(names)} op_names")
    return [[names[i] for i in row] for row in np.atleast_2d(index).tolist()]


def _ofa(arrays: Arrays) -> Sequence[Sequence[Any]]:
    columns = [arrays["r"]]
    for stage in range(len(OFA_STAGES)):
        columns.append(arrays["d"][:, stage])
        for layer in range(stage * OFA_LAYERS, (stage + 1) * OFA_LAYERS):
            columns += [arrays["ks"][:, layer], arrays["e"][:, layer]]
    return np.stack(columns, axis=1).tolist()


FORMATS: Mapping[str, Layout] = {
    "nb201": Layout("nb201", ("arch_str",), _nb201,
                    f"NAS-Bench-201 cells (Dong 2020, arXiv:2001.00326) timed by HW-NAS-Bench (Li 2021, "
                    f"arXiv:2103.10584) and others, {_HELP}"),
    "fbnet": Layout("fbnet", ("op_idx", "op_names"), _fbnet,
                    f"FBNet blocks (Wu 2019, arXiv:1812.03443) timed by HW-NAS-Bench (Li 2021, arXiv:2103.10584) and "
                    f"others, {_HELP}"),
    "ofa": Layout("ofa", ("ks", "e", "d", "r"), _ofa,
                  f"once-for-all networks (Cai 2020, arXiv:1908.09791) timed and {_HELP}"),
}  # fmt: skip


def devices(path: Path, format: str) -> list[dict[str, Any]]:
    """A row for each device of a table: name, batch, networks, median."""
    arrays = _read(path, FORMATS[format])
    return [
        {"device": name, "batch": batch_of(name), "nets": len(row), "median_ms": float(np.median(row))}
        for name, row in zip(_names(arrays), arrays["latency_ms"], strict=True)
    ]


def read(path: Path, format: str, device: str) -> Profile:
    """The timings of one device of a table; `nets` only, because operators were never timed."""
    layout = FORMATS[format]
    arrays = _read(path, layout)
    names = _names(arrays)
    if device not in names:
        raise BadProfile(f"{path} has no device {device!r}; {nearest(device, names)} (without --device: a list)")
    times = arrays["latency_ms"][names.index(device)].astype(float).tolist()
    nets = _nets(_archs(arrays, layout, path), times, f"{path}, {device}")
    checks.check_nets(nets, f"{path}, {device}")
    merged, batch = checks.one_each(nets), batch_of(device)
    return Profile(
        device=device,
        runtime=RUNTIME,
        versions={},
        threads=1,
        precision="fp32",
        batch=batch,
        measured_on=PUBLISHED_ON,
        cpu=_BATCH.sub("", device),
        governor="unknown",
        synthetic=False,
        overhead={},
        ops={},
        nets=merged,
        doubts=(UNKNOWN, *checks.clock_doubts(times), *_unit_doubts(merged, layout.space, f"{path}, {device}", batch)),
        source=layout.source,
    )


def table(path: Path, format: str) -> tuple[list[tuple[int, ...]], dict[str, np.ndarray]]:
    """All of a table at once: picks of each network, and each device's milliseconds (networks,)."""
    arrays = _read(path, FORMATS[format])
    picks = [arch.picks for arch in _archs(arrays, FORMATS[format], path)]
    return picks, dict(zip(_names(arrays), arrays["latency_ms"].astype(float), strict=True))


def batch_of(device: str) -> int:
    """The batch that a device's name ends in; a time is that of the whole batch.

    >>> batch_of("titan_rtx_64"), batch_of("silver_4114")
    (64, 1)
    """
    found = _BATCH.search(device)
    return max(1, int(found[1])) if found else 1


def _unit_doubts(nets: Sequence[NetTiming], name: str, what: str, batch: int) -> tuple[str, ...]:
    space = PUBLISHED[name]()
    some = nets[:: max(1, len(nets) // checks.MOST_JUDGED)]
    return checks.check_unit([(space.ops(net.arch), net.timing.median_ms) for net in some], what, batch=batch)


def _nets(archs: Sequence[Arch], times: Sequence[float], what: str) -> list[NetTiming]:
    timed = zip(archs, times, strict=True)
    return [NetTiming(arch, Timing(checks.value_ms(ms, f"{what}: {arch}"), 0.0, 1)) for arch, ms in timed]


def _archs(arrays: Arrays, layout: Layout, path: Path) -> list[Arch]:
    try:
        rows = layout.values(arrays)
    except BadProfile as error:
        raise BadProfile(f"{path}: {error}; {NEXT}") from None
    except (IndexError, ValueError, TypeError) as error:
        raise BadProfile(f"{path}: {', '.join(layout.arrays)} have other shapes than {layout.space}; {NEXT}") from error
    if len(rows) != arrays["latency_ms"].shape[1]:
        raise BadProfile(f"{path}: {arrays['latency_ms'].shape[1]} timings of {len(rows)} networks; {NEXT}")
    index = [{value: i for i, value in enumerate(options)} for options in _options(layout.space)]
    archs = []
    for row in rows:
        if len(row) != len(index) or any(value not in known for value, known in zip(row, index, strict=True)):
            raise BadProfile(f"{path}: {' '.join(map(str, row))[:80]} is no network of {layout.space}; {NEXT}")
        archs.append(Arch(layout.space, tuple(known[value] for value, known in zip(row, index, strict=True))))
    return archs


def _names(arrays: Arrays) -> list[str]:
    return [str(name) for name in arrays["devices"]]


def _read(path: Path, layout: Layout) -> Arrays:
    names = ("latency_ms", "devices", *layout.arrays)
    try:
        _check_archive(path, names)
        arrays = dict(zip(names, read_arrays(path, *names), strict=True))
    except DAMAGED as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        reason = "Python objects are never unpickled" if "allow_pickle" in reason else reason
        raise BadProfile(f"cannot read {path}: {reason}; {NEXT}") from error
    table = arrays["latency_ms"]
    if table.ndim != 2 or table.dtype.kind != "f" or arrays["devices"].shape != table.shape[:1] or not table.size:
        raise BadProfile(f"{path}: latency_ms is {table.dtype} {table.shape}, not floats (devices, nets); {NEXT}")
    return arrays


def _check_archive(path: Path, names: Sequence[str]) -> None:
    """Refuse another kind of table by the nearest right one, and what would not fit in memory, before reading."""
    with zipfile.ZipFile(path) as archive:
        inside = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    if missing := [name for name in names if name not in inside]:
        other = [name for name, layout in FORMATS.items() if {"latency_ms", *layout.arrays} <= set(inside)]
        advice = f"it looks like --format {other[0]}" if other else NEXT
        raise BadProfile(f"{path} has no array {missing[0]!r} but {', '.join(inside) or 'nothing'}; {advice}")
    if sum(inside.values()) > MAX_BYTES:
        raise BadProfile(f"{path} unpacks to {sum(inside.values()) / 2**20:.0f} MiB; {NEXT}")
