#!/usr/bin/env python3
"""Time the networks of an edgemeta kit on this device. Needs numpy and onnxruntime, nothing else.

    python3 edgemeta_profile.py

in a kit's folder is all: the timings land in timings.json beside this file, and go back to the workstation. A run that
was cut off goes on where it stopped if it is started again within the hour. Somewhere else:

    python3 edgemeta_profile.py KIT --out timings.json --seconds 40

Each network is timed at several moments in random order, every time in turns with one reference network: what the
reference does over the run tells how the speed of the device drifted. Nothing is pinned to a core; to time certain
cores of a device with big and little ones, start this under `taskset -c 4-7`. Kit and timings are specified in
export/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
except ImportError as missing:
    name = missing.name or "numpy or onnxruntime"
    sys.stderr.write(f"{name} is missing here: {sys.executable} -m pip install numpy onnxruntime\n")
    raise SystemExit(2) from None

FORMAT, RUNTIME = 1, "onnxruntime"
SAVE_EVERY_S, TELL_EVERY_S, VALID_S = 1.0, 0.2, 3600.0  # a device an hour later is another device
LOOK_S, BUSY = 0.3, 0.5  # how long the load of other processes is watched; in cores, what is told to a person
NEEDS = ("kit", "threads", "seed", "input_shape", "reference", "models", "head", "passes", "max_passes", "disagree",
         "chunks", "chunk_ms", "chunk_runs", "reference_runs", "seconds")  # fmt: skip
INTERRUPTED = 130
WARM_S, WARM_SHARE = (2.0, 4.0), (0.05, 0.1)  # at least and at most, before the first network; of the whole run
Session = Any  # onnxruntime.InferenceSession
Feeds = Mapping[str, Any]
Visit = list  # [network, median ms, IQR ms, reference ms, seconds since the start]


class KitError(Exception):
    """Something the user can mend, in one line."""


# The kit


def read_plan(kit: Path) -> dict[str, Any]:
    """What to time and how, as plan.json says."""
    try:
        plan = json.loads((kit / "plan.json").read_text())
    except OSError as error:
        raise KitError(f"no kit in {kit}: plan.json: {error.strerror}; give the folder of a kit") from None
    except ValueError:
        raise KitError(f"{kit / 'plan.json'} is damaged; copy the kit again") from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise KitError(f"{kit / 'plan.json'} is not a kit of format {FORMAT}; write it with this version of edgemeta")
    if lacks := [name for name in NEEDS if name not in plan]:
        raise KitError(f"{kit / 'plan.json'} lacks {lacks[0]!r}; copy the kit again")
    return plan


def open_model(path: Path, threads: int) -> Session:
    """A CPU session as devices open it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise KitError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {one_line(error)}") from None


def read_input(kit: Path, plan: Mapping[str, Any], session: Session) -> Feeds:
    path = kit / "models" / "input.bin"
    try:
        x = np.fromfile(path, np.float32).reshape(plan["input_shape"])
    except (OSError, ValueError):
        raise KitError(f"{path} is missing or damaged; copy the kit again") from None
    return {session.get_inputs()[0].name: x}


# Timing


def order(count: int, visits: Sequence[Visit], plan: Mapping[str, Any]) -> Iterator[int]:
    """Networks to time next: all in random order, again in another, then those whose timings disagree.

    Each pass skips what `visits` holds already, and sees what is appended to it meanwhile.
    """
    for turn in range(plan["max_passes"]):
        shuffled = list(range(count))
        random.Random(f"{plan['seed']}/{turn}").shuffle(shuffled)
        ratios: dict[int, list[float]] = {}
        for net, middle, _, reference, _ in visits:
            ratios.setdefault(net, []).append(middle / reference)
        for net in shuffled:
            found = ratios.get(net, [])
            again = len(found) == turn and turn and max(found) > plan["disagree"] * min(found)
            if len(found) <= turn and (turn < plan["passes"] or again):
                yield net


def runs(session: Session, feeds: Feeds, count: int) -> list[float]:
    """Milliseconds of `count` runs."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        session.run(None, feeds)
        taken.append((time.perf_counter_ns() - begin) / 1e6)
    return taken


def warm_up(session: Session, feeds: Feeds, least: float, most: float) -> None:
    """Run for at least so many seconds, then until two chunks in a row agree within 3 %, or time is up.

    A device that comes from rest may be half as fast for a second, and agree with itself meanwhile.
    """
    begin, before = time.perf_counter(), np.median(runs(session, feeds, 5))
    while (passed := time.perf_counter() - begin) < most:
        now = np.median(runs(session, feeds, 5))
        if passed >= least and abs(now - before) <= 0.03 * now:
            return
        before = now


def visit(session: Session, reference: Session, feeds: Feeds, plan: Mapping[str, Any]) -> list[float]:
    """Median and IQR of a network and median of the reference, run in turns.

    The first run of a turn finds the other's data in the caches and is dropped.
    """
    typical = min(runs(session, feeds, 6)[1:])
    count = int(np.clip(plan["chunk_ms"] / typical, *plan["chunk_runs"]))
    own: list[float] = []
    others: list[float] = []
    for _ in range(plan["chunks"]):
        others += runs(reference, feeds, plan["reference_runs"] + 1)[1:]
        own += runs(session, feeds, count + 1)[1:]
    low, middle, high = np.quantile(own, (0.25, 0.5, 0.75))
    return [float(middle), float(high - low), float(np.median(others))]


def head_ms(kit: Path, plan: Mapping[str, Any]) -> float:
    """Median time of the few-shot head."""
    session, rng = open_model(kit / plan["head"], plan["threads"]), np.random.default_rng(0)
    feeds = {x.name: rng.uniform(1, 2, x.shape).astype(np.float32) for x in session.get_inputs()}
    warm_up(session, feeds, 0.05, 0.15)
    taken, until = runs(session, feeds, 30), time.perf_counter() + 0.15
    while len(taken) < 1000 and time.perf_counter() < until:
        taken += runs(session, feeds, 5)
    return float(np.median(taken))


# The device


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0 \t\n")
    except OSError:
        return ""


def cpu() -> str:
    """The board's name where there is a device tree (Raspberry Pi and its like), else the processor's."""
    found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", read_text("/proc/cpuinfo"), re.MULTILINE)
    named = read_text("/proc/device-tree/model") or (found.group(1).strip() if found else "")
    return named or platform.processor() or platform.machine() or "unknown"


def affinity() -> list[int]:
    """Cores this process may run on; [] where the system does not tell."""
    allowed = getattr(os, "sched_getaffinity", None)
    return sorted(allowed(0)) if allowed else []


def governor(cores: Sequence[int]) -> str:
    """Frequency governors of the cores, "unknown" where the kernel shows none."""
    files = [f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor" for core in cores]
    return "+".join(sorted({text for text in map(read_text, files) if text})) or "unknown"


def busy_ticks(cores: Sequence[int]) -> int | None:
    """Clock ticks that the cores have worked, or have been kept from us by a hypervisor; None where not told."""
    lines = (line.split() for line in read_text("/proc/stat").splitlines())
    rows = [list(map(int, line[1:9])) for line in lines if line and line[0] in {f"cpu{core}" for core in cores}]
    return sum(sum(row) - row[3] - row[4] for row in rows) if rows and len(rows[0]) == 8 else None


def others_load(cores: Sequence[int]) -> float | None:
    """How many of the cores other processes keep busy while this one sleeps."""
    before, begin = busy_ticks(cores), time.perf_counter()
    time.sleep(LOOK_S)
    after, passed = busy_ticks(cores), time.perf_counter() - begin
    if before is None or after is None:
        return None
    return max(0.0, (after - before) / (passed * os.sysconf("SC_CLK_TCK")))


def facts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in timings.json beside the timings."""
    cores = affinity()
    return {
        "format": FORMAT,
        "kit": plan["kit"],
        "runtime": RUNTIME,
        "versions": {RUNTIME: onnxruntime.__version__, "python": platform.python_version()},
        "cpu": cpu(),
        "governor": governor(cores),
        "affinity": cores,
        "cores": os.cpu_count() or 1,
        "load": others_load(cores),
        "system": f"{platform.system()} {platform.machine()}",
        "measured_on": date.today().isoformat(),
    }


# Timings on disk


class Record:
    """The timings so far, and the file that keeps them."""

    def __init__(self, out: Path, about: Mapping[str, Any]):
        self.out, self.about = out, dict(about)
        self.visits: list[Visit] = []
        self.spent, self.finished = 0.0, False
        self.head: float | None = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not ours or not whole: timed anew
            self._resume(json.loads(out.read_text()))

    def _resume(self, kept: Mapping[str, Any]) -> None:
        same = all(kept[name] == self.about[name] for name in ("format", "kit", "runtime", "versions", "cpu"))
        if not same or not 0 <= time.time() - kept["saved_at"] < VALID_S:
            return
        visits = [[int(row[0]), *map(float, row[1:])] for row in kept["visits"] if len(row) == 5]
        self.spent, self.head, self.finished = float(kept["spent_s"]), kept["head_ms"], bool(kept["finished"])
        self.visits = visits

    def save(self, spent: float) -> None:
        """Write the file whole or not at all."""
        timed = {"spent_s": spent, "visits": self.visits, "head_ms": self.head, "finished": self.finished}
        handle, temporary = tempfile.mkstemp(dir=self.out.parent, prefix=f".{self.out.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({**self.about, "saved_at": time.time(), **timed}, file)
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.out)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def tell(done: int, total: int) -> None:
    text = f"\rtimed {done} of {total}" if sys.stdout.isatty() else f"progress {done} {total}\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def profile(kit: Path, out: Path, seconds: float | None = None) -> Record:
    """Time the kit for `seconds` in all, earlier runs included; whatever ends this, the file at `out` is current."""
    plan = read_plan(kit)
    limit = plan["seconds"] if seconds is None else seconds
    record = Record(out, facts(plan))
    pending = next(order(len(plan["models"]), record.visits, plan), None) is not None
    if record.finished and (record.spent >= limit or not pending):
        return record
    record.finished, record.head = False, None
    if sys.stdout.isatty() and (record.about["load"] or 0) > BUSY:
        print(f"other processes keep {record.about['load']:.1f} cores busy; timings are better without them")
    # One thread: the idle workers of a second session spin, and would take the cores of the one that is timed.
    reference = open_model(kit / plan["reference"], 1)
    feeds = read_input(kit, plan, reference)
    least, most = (min(seconds, share * limit) for seconds, share in zip(WARM_S, WARM_SHARE))
    warm_up(reference, feeds, least, most)
    time_all(kit, plan, record, reference, feeds, limit)
    return record


def time_all(
    kit: Path, plan: Mapping[str, Any], record: Record, reference: Session, feeds: Feeds, limit: float
) -> None:
    begin = saved = told = time.perf_counter()
    before, total = record.spent, len(plan["models"]) * plan["passes"]
    try:
        for net in order(len(plan["models"]), record.visits, plan):
            session = open_model(kit / plan["models"][net], plan["threads"])
            timed = visit(session, reference, feeds, plan)
            now = time.perf_counter()
            record.spent = before + now - begin
            record.visits.append([net, *timed, record.spent])
            if now - told >= TELL_EVERY_S:
                tell(min(len(record.visits), total), total)
                told = now
            if now - saved >= SAVE_EVERY_S:
                record.save(record.spent)
                saved = now
            if record.spent > limit:
                break
        record.head = head_ms(kit, plan)
        record.finished = True
        tell(min(len(record.visits), total), total)
    finally:
        record.save(record.spent)


@contextlib.contextmanager
def alone(kit: Path) -> Iterator[None]:
    """Refuse a second run of one kit at the same time: each would time the other."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(kit / "plan.json") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KitError(f"another run is timing {kit} at this moment; wait for its end, then try again") from None
        yield


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the networks of an edgemeta kit on this device.")
    here = Path(__file__).resolve().parent
    parser.add_argument("kit", type=Path, nargs="?", default=here, help="the kit's folder (default: where this lies)")
    parser.add_argument("--out", type=Path, help="where the timings go (default: KIT/timings.json)")
    parser.add_argument("--seconds", type=float, help="stop after this time (default: as the kit says)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    out = args.out or args.kit / "timings.json"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        read_plan(args.kit)
        out.parent.mkdir(parents=True, exist_ok=True)
        with alone(args.kit):
            record = profile(args.kit, out, args.seconds)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; what was timed is in {out}: run the same command again to go on\n")
        return INTERRUPTED
    except BrokenPipeError:  # nobody listens any more, a broken ssh connection for example: the timings are kept
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return INTERRUPTED
    except KitError as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 2
    except Exception as error:  # a full disk, a runtime that fails in the middle: one line all the same
        sys.stderr.write(f"timing {args.kit} failed: {type(error).__name__}: {one_line(error)}\n")
        return 2
    if sys.stdout.isatty():
        print(f"\n{len(record.visits)} timings are in {out}; bring it back: `edgemeta profile --kit KIT --from FILE`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
