"""A kit: the networks to time and how, as a folder that any runner can time (export/README.md specifies it)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from edgemeta.errors import BadProfile
from edgemeta.files import resource, write_bytes, write_json, write_text
from edgemeta.space.named import named
from edgemeta.space.space import Space
from edgemeta.types import Arch

from . import cover
from .onnx_net import classify_onnx, stored_model, stored_weights
from .onnx_parts import WEIGHTS_FILE

FORMAT = 1
PLAN = "plan.json"
MAX_PLAN_BYTES = 16 * 2**20
RUNNERS = ("python/edgemeta_profile.py", "web/edgemeta_profile.mjs")  # in export/
PASSES, MAX_PASSES = 3, 5  # moments at which each network is timed; for those whose timings disagree
FEW_PASSES, MAX_FEW_PASSES = 8, 16  # where few networks are all there will be
DISAGREE = 1.08  # ratio between the moments of one network that asks for another
TURNS = {"chunks": 4, "chunk_ms": 0.9, "chunk_runs": [3, 12], "reference_runs": 4}  # network and reference, in turns
SECONDS = 40.0
_AGAIN = "write the kit again with `edgemeta profile --kit DIR`"


@dataclass(frozen=True)
class Kit:
    """A kit on disk. `covering`: how many of `archs`, the first ones, were chosen to hold every operator of the space;
    0 where the kit times a few networks alone, with no thought of operators."""

    folder: Path
    id: str
    space: Space
    archs: tuple[Arch, ...]
    covering: int
    precision: str
    threads: int
    seconds: float


def covering_and_random(space: Space, nets: int, *, seed: int) -> tuple[list[Arch], int]:
    """The covering networks, then `nets` random ones, all different; and how many cover."""
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


def write(
    folder: Path | str,
    space: Space,
    archs: Sequence[Arch],
    *,
    seed: int,
    covering: int = 0,
    precision: str = "fp32",
    threads: int = 1,
    seconds: float = SECONDS,
) -> Kit:
    """Write the kit of `archs` into a folder; the same arguments give the same kit. `plan.json` comes last."""
    if not archs:
        raise BadProfile("no network to time; give at least one")
    folder, names = Path(folder), [f"models/{i:04}.onnx" for i in range(len(archs))]
    (folder / "models").mkdir(parents=True, exist_ok=True)
    models = [stored_model(space.ops(arch), precision=precision) for arch in archs]
    x = np.random.default_rng(seed).standard_normal((1, *space.in_shape), dtype=np.float32)
    files = {
        **dict(zip(names, models, strict=True)),
        "models/reference.onnx": stored_model(space.ops(reference(space)), precision=precision),
        "models/head.onnx": classify_onnx().SerializeToString(),
        f"models/{WEIGHTS_FILE}": stored_weights(precision),
        "models/input.bin": x.tobytes(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    made = {"reference": "models/reference.onnx", "models": names, "head": "models/head.onnx", **TURNS}
    passes, most = (PASSES, MAX_PASSES) if covering else (FEW_PASSES, MAX_FEW_PASSES)
    moments = {"passes": passes, "max_passes": most, "disagree": DISAGREE}
    what = {"space": space.name, "precision": precision, "threads": threads, "seed": seed}
    nets = {"input_shape": [1, *space.in_shape], "archs": [list(arch.picks) for arch in archs], "covering": covering}
    plan = {"format": FORMAT, **what, **nets, **made, **moments}
    plan |= {"kit": _identity(plan, {name: _digest(content) for name, content in files.items()}), "seconds": seconds}
    write_json(folder / PLAN, plan)
    return read(folder, space)


def read(folder: Path | str, space: Space | None = None) -> Kit:
    """A kit that was written before, of `space` where one is given; refused where a file is not what it was."""
    folder = Path(folder)
    plan = _plan(folder)
    try:
        own = named(plan["space"]) if space is None else space
        if plan["space"] != own.name:
            raise BadProfile(f"the kit {folder} is of space {plan['space']}, not {own.name}; {_AGAIN}")
        names = [*plan["models"], plan["reference"], plan["head"], f"models/{WEIGHTS_FILE}", "models/input.bin"]
        digests = {name: _digest((folder / name).read_bytes()) for name in names}
        identity = {name: value for name, value in plan.items() if name not in ("kit", "seconds")}
        if plan["kit"] != _identity(identity, digests):
            raise BadProfile(f"the kit {folder} is not as it was written: its files were changed; {_AGAIN}")
        archs = tuple(Arch(own.name, tuple(picks)) for picks in plan["archs"])
        what = (plan["covering"], plan["precision"], plan["threads"], plan["seconds"])
        return Kit(folder, plan["kit"], own, archs, *what)
    except OSError as error:
        raise BadProfile(f"the kit {folder} lacks a file: {error.filename}: {error.strerror}; {_AGAIN}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BadProfile(f"{folder / PLAN} is damaged ({type(error).__name__}: {error}); {_AGAIN}") from None


def carry(folder: Path | str) -> Path:
    """Put the runners and a few lines for a person into a kit's folder: it can now be carried by hand."""
    folder = Path(folder)
    for runner in (resource("export") / name for name in RUNNERS):
        if runner.exists():
            write_bytes(folder / runner.name, runner.read_bytes())
    return write_text(folder / "README.txt", _README)


def clear(folder: Path | str) -> None:
    """Make way for a kit: an earlier one is removed, anything else is left alone and refused."""
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / PLAN).is_file() or not (folder / "models").is_dir():
        raise BadProfile(f"{folder} holds something else than a kit; name a new folder with --kit")
    shutil.rmtree(folder / "models")
    (folder / PLAN).unlink()


_README = """\
Networks to time on a device, written by edgemeta.

1. Copy this folder to the device. It needs Python 3.9 or later with numpy and onnxruntime:

       python3 -m pip install numpy onnxruntime

2. Close what else runs there, plug it in, and start

       python3 edgemeta_profile.py

   It takes about a minute and writes timings.json into this folder. Started again within the hour it goes on.
   For onnxruntime-web under Node instead:

       npm install onnxruntime-web && node edgemeta_profile.mjs .

3. Bring timings.json back, and beside the original of this folder

       edgemeta profile --kit THIS_FOLDER --from timings.json
"""


def _plan(folder: Path) -> dict[str, Any]:
    path = folder / PLAN
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise BadProfile(f"{path} is too large for a kit's plan; {_AGAIN}")
        plan = json.loads(path.read_text())
    except OSError as error:
        raise BadProfile(f"no kit in {folder}: {PLAN}: {error.strerror}; {_AGAIN}") from None
    except (ValueError, RecursionError):
        raise BadProfile(f"{path} is damaged; {_AGAIN}") from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise BadProfile(f"{path} is not the plan of a kit of format {FORMAT}; {_AGAIN}")
    return plan


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _identity(plan: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Follows from everything that decides the timings."""
    return _digest(json.dumps([plan, digests], sort_keys=True).encode())
