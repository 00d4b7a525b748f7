"""Timing with ONNX Runtime: one model here and now, or a whole kit by a runner, which becomes a profile.

An operator timed alone misses what a runtime does around it: layout changes, fused additions, warm caches. So whole
networks are timed, enough of them that every operator occurs, and `solve` tells the operators apart.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from edgemeta.errors import BadProfile
from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Profile, Timing

from . import cover, features, machine, visits
from . import kit as kits
from .kit import SECONDS, Kit
from .onnx_net import classify_onnx
from .runners import RUNTIMES
from .solve import Sample, Solution, solve
from .visits import Timings

RUNTIME = "onnxruntime"
FEWEST_JUDGES = 19  # below it, no order statistic holds nine in ten
DOUBT_RATIO = 1.5  # an interval wider than that says little; the profiles that ship have 1.05 to 1.10


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
    precision: str = "fp32",
    runtime: str = RUNTIME,
    nets: int = 600,
    seconds: float = SECONDS,
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
    archs, covering = kits.covering_and_random(space, nets, seed=seed)
    settings: dict[str, Any] = dict(seed=seed, threads=threads, precision=precision, seconds=seconds, partial=partial)
    run = RUNTIMES[runtime]
    return measure(space, archs, run=run, covering=covering, prefix="host-", progress=progress, **settings)


def measure_nets(
    space: Space,
    archs: Sequence[Arch],
    *,
    seed: int,
    threads: int = 1,
    precision: str = "fp32",
    runtime: str = RUNTIME,
    seconds: float = SECONDS,
    partial: Path | None = None,
    progress: bool = True,
) -> Profile:
    """A profile of this machine with timings of `archs` alone, and no operators: for predictors that need few."""
    settings: dict[str, Any] = dict(seed=seed, threads=threads, precision=precision, seconds=seconds, partial=partial)
    return measure(space, archs, run=RUNTIMES[runtime], prefix="host-", progress=progress, **settings)


def measure(
    space: Space,
    archs: Sequence[Arch],
    *,
    run: Callable[..., Path],
    seed: int,
    covering: int = 0,
    threads: int = 1,
    precision: str = "fp32",
    seconds: float = SECONDS,
    partial: Path | None = None,
    prefix: str = "",
    progress: bool = True,
) -> Profile:
    """Write a kit of `archs`, let a runner of `latency.runners` time it, and make a profile of the timings.

    The first `covering` networks hold every operator of the space; with 0 the profile has no operators. Timings that
    are beyond belief are not kept in `partial`: the next call measures anew.
    """
    with tempfile.TemporaryDirectory(prefix="edgemeta-kit-") as folder:
        made = kits.write(
            folder,
            space,
            archs,
            seed=seed,
            covering=covering,
            precision=precision,
            threads=threads,
            seconds=seconds,
        )
        out = run(made, partial or Path(folder) / "timings.json", progress=progress)
        try:
            return profile_from(made, visits.read(out, made), prefix=prefix)
        except BadProfile:
            out.unlink(missing_ok=True)
            raise


def profile_from(kit: Kit, timings: Timings, *, prefix: str = "") -> Profile:
    """The profile that a kit's timings amount to; `prefix` goes before the device's name."""
    nets = visits.per_net(timings.visits)
    if not nets:
        raise BadProfile(f"no network of the kit {kit.folder} has timings that agree; time it again on a quiet device")
    overhead = {"drift_ratio": visits.drift_ratio(timings.visits), "slow_ratio": visits.slow_ratio(timings.visits)}
    doubts = visits.doubts(timings)
    if timings.head_ms is None:
        doubts += ("cut off before the end, so the few-shot head was not timed and is not in costs",)
    else:
        overhead["head_ms"] = timings.head_ms
    rows: dict[str, Timing] = {}
    status: dict[str, str] = {}
    if kit.covering:
        solution = _solution(kit, nets)
        overhead |= _constants(solution)
        rows, status = _rows(kit, nets, solution)
        doubts += _wide(solution, len(nets))
    return Profile(
        device=prefix + machine.slug(timings.cpu) + _suffix(kit, timings.runtime),
        runtime=timings.runtime,
        versions={**timings.versions, "system": timings.system},
        threads=kit.threads,
        precision=kit.precision,
        batch=1,
        measured_on=timings.measured_on,
        cpu=timings.cpu,
        governor=timings.governor,
        synthetic=False,
        overhead=overhead,
        ops=rows,
        nets=tuple(_net(kit, i, timing) for i, timing in nets.items()),
        status=status,
        affinity=timings.affinity,
        drift=visits.drift(timings.visits),
        doubts=doubts,
    )


def _suffix(kit: Kit, runtime: str) -> str:
    """What tells a device's settings apart from the common ones: one thread, float32, ONNX Runtime."""
    parts = ("-wasm" if runtime == "onnxruntime-web" else "", f"-{kit.threads}t" if kit.threads > 1 else "")
    return "".join(parts) + (f"-{kit.precision}" if kit.precision != "fp32" else "")


def _net(kit: Kit, position: int, timing: Timing) -> NetTiming:
    """Where networks are all that a profile has, each brings its operators: predictors need no space then."""
    arch = kit.archs[position]
    return NetTiming(arch, timing, () if kit.covering else kit.space.ops(arch))


def _solution(kit: Kit, nets: Mapping[int, Timing]) -> Solution:
    """The random networks are the interval's judges, for those are drawn as users'; all are where these are too few."""
    random = sum(i >= kit.covering for i in nets)
    least = kit.covering if random >= FEWEST_JUDGES else 0
    samples = [Sample(kit.space.ops(kit.archs[i]), timing.median_ms, i >= least) for i, timing in nets.items()]
    return solve(samples, cover.operators(kit.space))


def _constants(solution: Solution) -> dict[str, float]:
    slopes = {features.slope_name(knot): slope for knot, slope in solution.slopes_ms.items()}
    ratios = {"low_ratio": solution.low_ratio, "high_ratio": solution.high_ratio}
    return {"run_ms": solution.run_ms, **slopes, **ratios}


def _wide(solution: Solution, nets: int) -> tuple[str, ...]:
    """A search under a cap goes by the interval's upper end, and with a wide one takes tiny networks alone."""
    if solution.low_ratio >= 1 / DOUBT_RATIO and solution.high_ratio <= DOUBT_RATIO:
        return ()
    span = f"{solution.low_ratio:.2g} to {solution.high_ratio:.2g} times"
    return (f"predictions from {nets} networks are off by {span}: give more --seconds on a quieter device",)


def _rows(kit: Kit, nets: Mapping[int, Timing], solution: Solution) -> tuple[dict[str, Timing], dict[str, str]]:
    """Each operator's latency, and why a row is not "ok"."""
    seen = dict.fromkeys(cover.operators(kit.space), 0)
    for net in nets:
        for key in {op.key for op in kit.space.ops(kit.archs[net])}:
            seen[key] += 1
    rows = {
        key: Timing(solution.op_ms[key], 1.349 * solution.op_sd_ms[key], max(1, count))  # a normal's IQR
        for key, count in seen.items()
    }
    return rows, _status(rows, seen)


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
    """One classification of 5 ways on 128 features, here."""
    rng = np.random.default_rng(0)
    shapes = {"z": (1, 128), "total": (5, 128), "count": (5, 1)}
    feeds = {name: rng.uniform(1, 2, shape).astype(np.float32) for name, shape in shapes.items()}
    return time_model(classify_onnx().SerializeToString(), feeds, threads=threads, max_seconds=0.3).median_ms


def versions() -> dict[str, str]:
    """As the local runner records them."""
    system = f"{platform.system()} {platform.machine()}"
    return {RUNTIME: onnxruntime.__version__, "python": platform.python_version(), "system": system}
