"""Make the profile of a Cortex-M that ships: instructions of every operator of a space, counted by QEMU.

    python tools/make_cortex_m.py --space edge --nets 60 --out profiles/cortex-m4f-168mhz.json

Networks are compiled as `edgemeta export --c` compiles them and run on an emulated board, which counts the instructions
of each operator exactly (`-icount`). A covering set holds every operator of the space; random networks on top judge how
far a sum of operators is from a whole network. Milliseconds are instructions at a clock and one instruction per cycle:
an emulator knows no wait states, no caches and no instruction that takes longer than another. It takes about ten
minutes of one core, make, arm-none-eabi-gcc and qemu-system-arm.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from edgemeta.files import resource
from edgemeta.latency import kit
from edgemeta.latency import profile as profiles
from edgemeta.latency.solve import interval
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle, c_check, to_c
from edgemeta.lowering.manifest import Normalisation
from edgemeta.nets.build import build
from edgemeta.space.presets import SPACES
from edgemeta.space.space import Space
from edgemeta.types import Arch, NetTiming, Op, Profile, Timing

HEAD_DIM, HEAD_WAY = 128, 5  # of the few-shot head that costs add to a network's latency
DOUBT = "instructions of an emulator, not times of silicon: a core takes 1 to 3 cycles for most, and waits for flash"
# The weights are anybody's, so one pool in memory is all of them; scratch is the board's largest memory.
_MAIN = """\
#include "em_port.h"
#include "em_counted.h"
#define MOST 512
float em_pool[1 << 18];
static float z[1 << 12];
static float *const scratch = (float *)0x21000000u;
static uint32_t counts[MOST], before;
static int marks;
void em_graph_body(void *scratch, float *z);
void em_mark(int node) {
    counts[marks++] = em_clock() - before;
    (void)node;
    before = em_clock();
}
static void say(uint32_t value) {
    char digits[12] = "          \\n";
    for (int at = 9; at >= 0 && (value || at == 9); at--, value /= 10u) digits[at] = (char)('0' + value % 10u);
    em_say(digits);
}
int main(void) {
    uint32_t h = 1u, begin, end;
    int called;
    for (unsigned i = 0; i < sizeof em_pool / sizeof *em_pool; i++, h = h * 1664525u + 1013904223u) {
        em_pool[i] = ((float)(h >> 8) / 16777216.0f - 0.5f) * 0.1f;
    }
    for (unsigned i = 0; i < 1u << 20; i++) scratch[i] = em_pool[i % (sizeof em_pool / sizeof *em_pool)] * 10.0f + 0.5f;
    before = em_clock();
    em_mark(0);
    em_mark(0);
    counts[0] = counts[1];
    marks = 1;
    begin = before = em_clock();
    em_graph_body(scratch, z);
    end = em_clock();
    called = marks;
    for (int i = 0; i < called; i++) say(em_instructions(counts[i]));
    say(em_instructions(end - begin));
    return 0;
}
"""


class Counted(NamedTuple):
    """Instructions of a network: of each of its operators, and in all."""

    ops: tuple[int, ...]
    total: int


class Board:
    """A folder in which one network after another is compiled and run."""

    def __init__(self, folder: Path, core: str):
        self._folder, self._core = folder, core
        for name in to_c.HAND_WRITTEN:
            (folder / name).write_bytes((resource("export") / "c" / name).read_bytes())
        (folder / "em_counted.h").write_text("void em_mark(int node);\n#define EM_MARK(node) em_mark(node)\n")
        (folder / "em_model.h").write_text(
            f"#include <stdint.h>\nvoid em_graph_body(void *scratch, {to_c.PARAMETERS['body']});\n"
        )
        (folder / "em_golden.h").touch()
        (folder / "em_selftest.c").write_text(_MAIN)

    def count(self, ops: Sequence[Op]) -> Counted:
        code, nodes, constants = to_c.body(ops)
        (self._folder / "em_model.c").write_text(code)
        pool = " ".join(f"-Wl,--defsym,{name}=em_pool" for name in constants)
        told = self._make(f"LDFLAGS={pool}", "EXTRA=-include em_counted.h", "OBJECTS=em_conv em_model")
        own, *marked, total = (int(line) for line in told.splitlines() if line.strip().isdigit())
        counts = [0] * len(ops)
        for title, count in zip(nodes, marked, strict=True):
            place = title.partition(".")[0]
            counts[int(place)] += count - own
        return Counted(tuple(counts), total - own * len(marked))

    def _make(self, *settings: str) -> str:
        command = ["make", "-s", "-C", str(self._folder), "run", f"CORE={self._core}", *settings]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            sys.exit(f"make_cortex_m: {' '.join(done.stderr.split())[:400]}")
        return done.stdout


def head_instructions(core: str) -> int:
    """Of a nearest-prototype classification of `HEAD_WAY` classes on `HEAD_DIM` features."""
    learner = LEARNERS["protonet"](build((Op("conv", (1, 1, 1), (HEAD_DIM, 1, 1)),)))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    shape = Normalisation(channels=1, height=1, width=1)
    graphs = {name: model.SerializeToString() for name, model in bundle.lower(slow, learner).items()}
    made = to_c.program(learner, slow, graphs, rows=25, way=HEAD_WAY, normalisation=shape, name="the head")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in made.files.items():
            (Path(folder) / name).write_text(text)
        return c_check.emulated(Path(folder), core)["classify_instructions"]


def profile_of(
    space: Space, found: Mapping[Arch, Counted], covering: int, *, head: int, core: str, mhz: float
) -> Profile:
    """Milliseconds of operators, medians where one was counted in several networks, and of whole networks."""
    per_ms = mhz * 1e3
    rows: dict[str, list[float]] = {}
    for arch, counted in found.items():
        for op, count in zip(space.ops(arch), counted.ops, strict=True):
            rows.setdefault(op.key, []).append(count / per_ms)
    ops = {key: _timing(rows[key]) for key in sorted(rows)}
    rest = median(counted.total - sum(counted.ops) for counted in found.values())
    judges = list(found.items())[covering:]
    ratios = [
        counted.total / per_ms / (sum(ops[op.key].median_ms for op in space.ops(arch)) + rest / per_ms)
        for arch, counted in judges
    ]
    low, high = interval(np.array(ratios))
    overhead = {"run_ms": rest / per_ms, "head_ms": head / per_ms, "low_ratio": low, "high_ratio": high}
    return Profile(
        device=f"cortex-{core}{'f' if core != 'm3' else ''}-{mhz:g}mhz",
        runtime="edgemeta-c",
        versions=versions(),
        threads=1,
        precision="fp32",
        batch=1,
        measured_on=datetime.date.today().isoformat(),
        cpu=f"Arm Cortex-{core.upper()} emulated by QEMU, {mhz:g} MHz, one instruction per cycle",
        governor="none",
        synthetic=True,
        overhead=overhead,
        ops=ops,
        nets=tuple(NetTiming(arch, Timing(counted.total / per_ms, 0.0, 1)) for arch, counted in found.items()),
        doubts=(DOUBT,),
        source=f"instructions counted by QEMU -icount, of C compiled with -O2; at {mhz:g} MHz",
    )


def versions() -> dict[str, str]:
    def told(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    found = re.search(r"version (\S+)", told(c_check.EMULATOR, "--version"))
    compiler = told("arm-none-eabi-gcc", "-dumpfullversion").strip()
    emulator = found[1] if found else "unknown"
    return {"arm-none-eabi-gcc": compiler, c_check.EMULATOR: emulator, "emx-onnx-cgen": version("emx-onnx-cgen")}


def _timing(values: Sequence[float]) -> Timing:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Timing(float(middle), float(high - low), len(values))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="edge", choices=SPACES)
    parser.add_argument("--in-shape", default="1,28,28", help="channels,height,width")
    parser.add_argument("--core", default="m4", choices=c_check.CORES)
    parser.add_argument("--mhz", type=float, default=c_check.CLOCK_MHZ)
    parser.add_argument("--nets", type=int, default=60, help="random networks, on which the interval is judged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if missing := c_check.lacks(*c_check.ARM, c_check.EMULATOR):
        sys.exit(f"make_cortex_m: no {missing} on this machine; `make system-deps` installs it")
    channels, height, width = map(int, args.in_shape.split(","))
    space = SPACES[args.space]((channels, height, width))
    archs, covering = kit.covering_and_random(space, args.nets, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder), args.core)
        found = {arch: board.count(space.ops(arch)) for arch in tqdm(archs, desc=f"cortex-{args.core}")}
    made = profile_of(space, found, covering, head=head_instructions(args.core), core=args.core, mhz=args.mhz)
    profiles.save(made, args.out)
    print(f"{made.device}: {len(made.ops)} operators, {len(made.nets)} networks -> {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
