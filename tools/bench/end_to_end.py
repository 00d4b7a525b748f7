"""From nothing to a checked bundle that learns on the device, then to a second one under another cap.

Runs the commands a user would, in fresh processes, an empty run folder and an empty data cache:

    python tools/bench/end_to_end.py --json out.json

Installing is not counted; rendering the built-in data and profiling the machine are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import emit, parser

from edgemeta.lowering import bundle
from edgemeta.stages.candidates import inference_ms

SECOND_CAP = 0.8  # of the first latency cap
REPEATS = 3
TINY = {
    "demo": ["--quick", "--latency-ms", "5"],
    "search": ["--space", "tiny", "--rungs", "20,40", "--eval-episodes", "60"],
}


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"tiny": True})
    args.add_argument("--keep", type=Path, help="run folder to use and keep (default: a temporary one)")
    args.add_argument("--tiny", action="store_true", help="a tiny space and little training, as in `demo --quick`")
    given = args.parse_args()
    small = TINY if given.tiny else {}
    with tempfile.TemporaryDirectory() as folder:
        run = given.keep or Path(folder) / "run"
        shared = ["--run", str(run), "--cache", str(Path(folder) / "cache")]
        total_s = timed(["demo", *small.get("demo", []), *shared])
        cap_ms = json.loads((run / "search.json").read_text())["config"]["latency_ms"]
        stages = json.loads((run / "stages.json").read_text())
        rows = [{"stage": name, "seconds": seconds} for name, seconds in stages.items()]
        caps = [broken(path) for path in run.glob("bundle*")]
        tighter = str(SECOND_CAP * cap_ms)
        capped = ["search", "--latency-ms", tighter, "--ram-kib", "128", "--flash-kib", "512", "--trials", "8"]
        second_s = timed([*capped, *small.get("search", []), *shared])
        caps.append(broken(run / "bundle"))
    rows += [{"stage": "whole demo", "seconds": total_s}, {"stage": "second search", "seconds": second_s}]
    values = {"total_s": total_s, "second_search_s": second_s, "broken_caps": sum(caps)}
    return emit("end_to_end", values, rows, given.json, {"latency_ms": cap_ms}, goals=given.goals, quick=given.quick)


def timed(arguments: list[str]) -> float:
    """Wall seconds of one command, its start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "edgemeta.cli", *arguments], check=True)
    return time.perf_counter() - began


def broken(folder: Path) -> bool:
    """Whether a bundle, measured again (the median of three), is over the caps in its manifest."""
    costs = bundle.read(folder).costs
    latency = sorted(inference_ms(bundle.measure(folder)) for _ in range(REPEATS))[REPEATS // 2]
    over = costs.caps.latency_ms is not None and latency > costs.caps.latency_ms
    over = over or (costs.caps.ram_kib is not None and (costs.predicted.ram_kib or 0.0) > costs.caps.ram_kib)
    return over or (costs.caps.flash_kib is not None and costs.graph_kib > costs.caps.flash_kib)


if __name__ == "__main__":
    sys.exit(main())
