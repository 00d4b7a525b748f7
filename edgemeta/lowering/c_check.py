"""Building a C program with the compilers there are, holding its answers against ONNX Runtime's, and what it takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemeta.errors import BadBundle
from edgemeta.lowering.manifest import Costs
from edgemeta.lowering.to_c import Program
from edgemeta.types import KIB

CORES = ("m3", "m4", "m7")
SECONDS = 300.0  # for one compiler or emulator
CLOCK_MHZ = 168.0  # at one instruction per cycle, where milliseconds are told
HOST, ARM = ("make", "cc"), ("make", "arm-none-eabi-gcc")
EMULATOR = "qemu-system-arm"
DIFFERENCES = ("features", "logits", "forgotten")  # of the self-test, in 1e-9
CALLS = ("body", "adapt", "classify")


def lacks(*programs: str) -> str:
    """The first of these programs that is not on this machine; empty where all are."""
    return next((program for program in programs if not shutil.which(program)), "")


def on_host(folder: Path, *, sanitize: bool = False) -> dict[str, int]:
    """The self-test's figures on this machine; raises `BadBundle` where its answers differ from ONNX Runtime's."""
    flags = ["SANITIZE=-O0 -g -fsanitize=address,undefined -fno-sanitize-recover=all"] if sanitize else []
    return _figures(_make(folder, "check", *flags))


def emulated(folder: Path, core: str) -> dict[str, int]:
    """The same on an emulated Cortex-M, with instructions counted."""
    return _figures(_make(folder, "run", f"CORE={core}"))


def flash(folder: Path, core: str) -> dict[str, int]:
    """Bytes of flash of each object file: code and constants."""
    lines = _make(folder, "size", f"CORE={core}").splitlines()
    rows = [line.split() for line in lines if line.strip().endswith(".o")]
    return {Path(row[-1]).stem: int(row[0]) + int(row[1]) for row in rows}


def figures(program: Program, folder: Path, costs: Costs, *, core: str = "m4") -> dict[str, Any]:
    """What the program takes beside what the bundle's manifest says; "not checked: why" where a tool is missing.

    RAM is in KiB, of each call with what it works on: the arena, the image among it, and but for the body the state.
    """
    memory = program.memory
    calls = {"body": memory.body, "adapt": memory.adapt + memory.state, "classify": memory.classify + memory.state}
    ram = {name: size / KIB for name, size in calls.items()}
    taken: dict[str, Any] = {
        "core": f"cortex-{core}",
        "ram_kib": {**ram, "arena": memory.arena / KIB, "state": memory.state / KIB, "arena_floor": memory.floor / KIB},
        "flash_kib": _missing(*ARM) or _flash_kib(folder, core),
        "host": _missing(*HOST) or _differences(on_host(folder)),
        "emulated": _missing(*ARM, EMULATOR) or _emulated(folder, core),
    }
    return taken | {"manifest": _beside(taken, costs)}


def _flash_kib(folder: Path, core: str) -> dict[str, float]:
    """Without what the linker takes of the C library: some math functions, 2 to 6 KiB."""
    sizes = flash(folder, core)
    weights = sizes["em_weights"] / KIB
    return {"weights": weights, "code": sum(sizes.values()) / KIB - weights, "total": sum(sizes.values()) / KIB}


def _emulated(folder: Path, core: str) -> dict[str, Any]:
    found = emulated(folder, core)
    counts = {name: found[f"{name}_instructions"] for name in CALLS}
    ms = {name: count / CLOCK_MHZ / 1e3 for name, count in counts.items()}
    stack_kib = found["stack_bytes"] / KIB
    clock = {"instructions": counts, "ms": ms, "clock": f"{CLOCK_MHZ:g} MHz, one instruction per cycle"}
    return {**_differences(found), **clock, "stack_kib": stack_kib}


def _differences(found: Mapping[str, int]) -> dict[str, float]:
    return {name: found[f"{name}_1e9"] / 1e9 for name in DIFFERENCES}


def _beside(taken: Mapping[str, Any], costs: Costs) -> dict[str, Any]:
    """The manifest's figures, and ours over them."""
    ram, flash_kib = taken["ram_kib"], taken["flash_kib"]
    total = flash_kib["total"] if isinstance(flash_kib, dict) else None
    pairs = {
        "ram_kib": (ram["body"], costs.predicted.ram_kib),
        "adapt_ram_kib": (ram["adapt"], costs.adapt_ram_kib),
        "flash_kib": (total, costs.predicted.flash_kib),
        "graph_kib": (total, costs.graph_kib),
    }
    return {
        name: {"manifest": said, "here": ours, "ratio": ours / said if ours and said else None}
        for name, (ours, said) in pairs.items()
    }


def _missing(*programs: str) -> str:
    found = lacks(*programs)
    return f"not checked: no {found} on this machine; run make where there is one" if found else ""


def _make(folder: Path, target: str, *flags: str) -> str:
    command = ["make", "-s", "-C", str(folder), target, *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BadBundle(f"`make {target}` took longer than {SECONDS:g} s; choose a smaller network") from None
    if done.returncode == 0:
        return done.stdout
    if "failed\n" in done.stdout:
        told = ", ".join(f"{name} by {gap:.2g}" for name, gap in _differences(_figures(done.stdout)).items())
        raise BadBundle(
            f"the C program's answers differ from ONNX Runtime's (at most 1e-4): {told}; nothing was written"
        )
    raise BadBundle(f"`make {target}` failed: {_first(done.stderr)}; nothing was written")


def _figures(told: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", told, re.MULTILINE)}


def _first(text: str) -> str:
    """The first complaint, or the first line."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line or "fault" in line), (lines or ["no reason given"])[0])[:200]
