"""Timing with ONNX Runtime: one model, or all operators of a space inside the networks they will run in.

An operator timed alone misses what a runtime does around it: layout changes, fused additions, warm caches. So whole
networks are timed, enough of them that every operator occurs, and `solve` tells the operators apart.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import onnx
import onnxruntime
from tqdm import tqdm

from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Op, Profile, Timing

from . import cover, features, machine
from .onnx_net import classify_onnx, to_onnx
from .solve import Sample, Solution, solve
from .visits import PASSES, SAVE_EVERY_S, Visit, keep, order, per_net, resume

RUNTIME = "onnxruntime"
_CHUNKS, _CHUNK_MS, _CHUNK_RUNS = 4, 0.9, (3, 12)  # target and reference take turns this often, this long
_REFERENCE_RUNS = 4
FEWEST_JUDGES = 19  # below it, no order statistic holds nine in ten


def session(model: bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session as devices open it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def time_model(
    model: bytes,
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    min_repeats: int = 30,
    max_repeats: int = 1000,
    max_seconds: float = 1.0,
) -> Timing:
    """Median and quartile distance of `session.run` once warmed up; at least `min_repeats`, whatever they take."""
    opened, begin = session(model, threads=threads), time.perf_counter()
    _warm_up(opened, feeds, begin + max_seconds / 2)
    runs: list[float] = []
    while len(runs) < min_repeats or (len(runs) < max_repeats and time.perf_counter() - begin < max_seconds):
        runs += _runs(opened, feeds, 5)
    return _timing(runs)


def _warm_up(opened: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray], until: float) -> None:
    """Run until two chunks in a row agree within 3 %, or time is up."""
    before = median(_runs(opened, feeds, 5))
    while time.perf_counter() < until:
        now = median(_runs(opened, feeds, 5))
        if abs(now - before) <= 0.03 * now:
            return
        before = now


def _runs(opened: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray], count: int) -> list[float]:
    """Milliseconds of `count` runs."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        opened.run(None, feeds)
        taken.append((time.perf_counter_ns() - begin) / 1e6)
    return taken


def _timing(runs: Sequence[float]) -> Timing:
    low, middle, high = np.quantile(runs, (0.25, 0.5, 0.75))
    return Timing(float(middle), float(high - low), len(runs))


def measure_host(
    space: Space,
    *,
    seed: int,
    threads: int = 1,
    nets: int = 600,
    seconds: float = 40.0,
    partial: Path | None = None,
    progress: bool = True,
) -> Profile:
    """Profile this machine: the covering networks of `space` and `nets` random ones, each at two moments or more.

    Stops after about `seconds` of timing, whatever is done by then. `partial` is a file in which the timings are kept
    as they come: a run that was killed goes on from it if it is no older than an hour. Remove it once the profile is
    saved.

    The speed of a machine drifts by some percent within seconds. A reference network is timed in turn with each
    network, and each timing is scaled to the median speed of the whole profile.
    """
    archs, covering = _archs(space, nets, seed)
    header = {"space": space.name, "seed": seed, "nets": nets, "threads": threads, **versions(), "cpu": machine.cpu()}
    visits, spent = resume(partial, header)
    _visit_all(
        space,
        archs,
        visits,
        header,
        spent=spent,
        seconds=seconds,
        threads=threads,
        seed=seed,
        partial=partial,
        progress=progress,
    )
    timings = per_net(visits)
    operators = cover.operators(space)
    at_once = _at_once(visits, covering)
    samples = [Sample(space.ops(archs[i]), timing.median_ms, at_once.get(i)) for i, timing in sorted(timings.items())]
    solution = solve(samples, operators)
    references = [visit.reference for visit in visits]
    drift = float(np.quantile(references, 0.9) / np.quantile(references, 0.1))
    return _profile(space, archs, timings, solution, operators, drift=drift, threads=threads)


def _at_once(visits: Sequence[Visit], covering: int) -> dict[int, float]:
    """Network -> timing at its first moment, speed drift and all, of the random networks: those are drawn as users'.

    The covering networks stand in where time was up before enough random ones were timed.
    """
    first = {visit.net: visit.median for visit in reversed(visits)}
    drawn = {net: ms for net, ms in first.items() if net >= covering}
    return drawn if len(drawn) >= FEWEST_JUDGES else first


def _archs(space: Space, nets: int, seed: int) -> tuple[list[Arch], int]:
    """The covering networks, then the random ones, all different; and how many cover."""
    rng = Random(seed)
    chosen = dict.fromkeys(cover.covering(space, rng=rng))
    covering = len(chosen)
    for _ in range(nets):
        drawn = next((a for a in (space.sample(rng=rng) for _ in range(100)) if a not in chosen), None)
        chosen |= {} if drawn is None else {drawn: None}
    return list(chosen), covering


def reference(space: Space) -> Arch:
    """A plain network of middling width: what the machine's speed is judged by."""
    return Arch(space.name, tuple(len(opts) // 2 if slot.endswith("width") else 0 for slot, opts in space.slots))


def _visit_all(
    space: Space,
    archs: Sequence[Arch],
    visits: list[Visit],
    header: Mapping,
    *,
    spent: float,
    seconds: float,
    threads: int,
    seed: int,
    partial: Path | None,
    progress: bool,
) -> None:
    """Append to `visits` until every network is done or time is up; whatever ends this, the partial file is current."""
    feeds = {"x": np.random.default_rng(seed).standard_normal((1, *space.in_shape), dtype=np.float32)}
    compare = _open(space.ops(reference(space)), threads)
    _warm_up(compare, feeds, time.perf_counter() + 1.0)
    begin = saved = time.perf_counter()
    bar = tqdm(
        total=len(archs) * PASSES,
        initial=min(len(visits), len(archs) * PASSES),
        desc=f"timing {space.name}",
        unit="net",
        disable=not progress,
    )
    try:
        for net in order(len(archs), visits, seed=seed):
            visits.append(_visit(net, _open(space.ops(archs[net]), threads), compare, feeds))
            bar.update()
            now = time.perf_counter()
            if now - begin + spent > seconds:
                break
            if now - saved > SAVE_EVERY_S:
                keep(partial, header, visits, spent + now - begin)
                saved = now
    finally:
        bar.close()
        keep(partial, header, visits, spent + time.perf_counter() - begin)


def _open(ops: Sequence[Op], threads: int) -> onnxruntime.InferenceSession:
    return session(to_onnx(ops, batch=1).SerializeToString(), threads=threads)


def _visit(
    net: int,
    opened: onnxruntime.InferenceSession,
    compare: onnxruntime.InferenceSession,
    feeds: Mapping[str, np.ndarray],
) -> Visit:
    """Network and reference in turns; the first run of a turn finds the other's data in the caches and is dropped."""
    typical = min(_runs(opened, feeds, 6)[1:])
    count = int(np.clip(_CHUNK_MS / typical, *_CHUNK_RUNS))
    runs: list[float] = []
    others: list[float] = []
    for _ in range(_CHUNKS):
        others += _runs(compare, feeds, _REFERENCE_RUNS + 1)[1:]
        runs += _runs(opened, feeds, count + 1)[1:]
    timing = _timing(runs)
    return Visit(net, timing.median_ms, timing.iqr_ms, median(others))


def _profile(
    space: Space,
    archs: Sequence[Arch],
    timings: Mapping[int, Timing],
    solution: Solution,
    operators: Mapping[str, Op],
    *,
    drift: float,
    threads: int,
) -> Profile:
    seen = dict.fromkeys(operators, 0)
    for net in timings:
        for key in {op.key for op in space.ops(archs[net])}:
            seen[key] += 1
    rows = {
        key: Timing(solution.op_ms[key], 1.349 * solution.op_sd_ms[key], max(1, seen[key]))  # a normal's IQR
        for key in operators
    }
    return Profile(
        device=f"host-{machine.slug(machine.cpu())}",
        runtime=RUNTIME,
        versions=versions(),
        threads=threads,
        precision="fp32",
        batch=1,
        measured_on=date.today().isoformat(),
        cpu=machine.cpu(),
        governor=machine.governor(),
        synthetic=False,
        overhead={
            "run_ms": solution.run_ms,
            **{features.slope_name(knot): slope for knot, slope in solution.slopes_ms.items()},
            "head_ms": head_ms(threads),
            "low_ratio": solution.low_ratio,
            "high_ratio": solution.high_ratio,
            "drift_ratio": drift,
        },
        ops=rows,
        nets=tuple(NetTiming(archs[i], timing) for i, timing in sorted(timings.items())),
        status=_status(rows, seen),
    )


def _status(rows: Mapping[str, Timing], seen: Mapping[str, int]) -> dict[str, str]:
    """Why a row is not "ok": in no timed network, or too uncertain beside what it weighs."""
    status = {}
    for key, timing in rows.items():
        if not seen[key]:
            status[key] = "estimated: in no network timed before the time was up"
        elif timing.iqr_ms > max(0.5 * timing.median_ms, 0.002):
            status[key] = f"noisy: IQR {timing.iqr_ms:.2g} ms"
    return status


def head_ms(threads: int) -> float:
    rng = np.random.default_rng(0)
    shapes = {"z": (1, 128), "total": (5, 128), "count": (5, 1)}
    feeds = {name: rng.uniform(1, 2, shape).astype(np.float32) for name, shape in shapes.items()}
    return time_model(classify_onnx().SerializeToString(), feeds, threads=threads, max_seconds=0.3).median_ms


def versions() -> dict[str, str]:
    return {
        RUNTIME: onnxruntime.__version__,
        "onnx": onnx.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
