"""Malformed files against every reader: profiles, manifests, states, settings, data.

    python tools/bench/fuzz.py --inputs 100000 --json fuzz.json

Each input is a sound file with something wrong in it (`_mutations.py`): bytes, JSON values, npz headers that lie,
pickles, zip bombs. A reader may take it, or refuse it with an error of ours in one line; anything else counts in
`foreign_errors`, and so does an input that takes longer than HANG_S. `peak_mb`: how much the process grew. Its address
space is limited, so that an allocation that a header asks for fails where it is made. `--keep` keeps what was foreign.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from _common import emit, parser
from _mutations import Mutate, json_of, npz_of, toml_of

from edgemeta import config as configs
from edgemeta import files
from edgemeta.data.arrays import load_npz
from edgemeta.errors import EdgemetaError
from edgemeta.latency import profile as profiles
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.nets.build import build
from edgemeta.space.presets import tiny

sys.path.insert(0, str(files.resource("export") / "python"))
import edgemeta_device

HANG_S = 5.0
ROOM_MB = 500  # of address space beyond what is used already
OURS = (EdgemetaError, edgemeta_device.DeviceError)
SETTINGS = b"""run = "runs/x"
seed = 3
[search]
latency_ms = 0.5
rungs = [10, 30]
in_shape = [1, 28, 28]
learner = "protonet"
searcher = "evolution"
cache = "~/.cache"
"""


class Target(NamedTuple):
    """A reader, sound files for it, and what spoils them."""

    seeds: Sequence[bytes]
    name: str  # of the file
    read: Callable[[Path], object]
    mutate: Mutate


def main() -> int:
    args = parser(__doc__.split("\n")[0], quick={"inputs": 2000})
    args.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--keep", type=Path, help="folder for inputs with foreign errors")
    given = args.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        rows = run(targets(Path(place)), given.inputs, given.seed, Path(place), given.keep)
    values = {
        "inputs": sum(row["inputs"] for row in rows),
        "foreign_errors": sum(row["foreign"] for row in rows),
        "peak_mb": max(row["peak_mb"] for row in rows),
    }
    return emit("fuzz", values, rows, given.json, {"seed": given.seed}, goals=given.goals, quick=given.quick)


def run(found: dict[str, Target], inputs: int, seed: int, place: Path, keep: Path | None) -> list[dict[str, Any]]:
    for target in found.values():  # what is loaded lazily is loaded now
        for sound in target.seeds:
            answer = _tried(target, sound, place)
            assert answer[0] == "taken", (target.name, answer)
    before_mb, limit = _rss_mb(), _vms_bytes() + ROOM_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    rows = []
    for name, target in found.items():
        rng, told = Random(f"{seed} {name}"), {"taken": 0, "refused": 0, "foreign": 0}
        began, kinds, slowest = time.perf_counter(), dict[str, int](), 0.0
        for i in range(inputs // len(found)):
            data = target.mutate(rng.choice(target.seeds), rng)
            verdict, why, spent_s = _tried(target, data, place)
            told[verdict] += 1
            slowest = max(slowest, spent_s)
            if verdict == "foreign":
                kinds[why] = kinds.get(why, 0) + 1
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{i}-{target.name}").write_bytes(data)
        rows.append(
            {
                "reader": name,
                "inputs": sum(told.values()),
                **told,
                "per_s": sum(told.values()) / (time.perf_counter() - began),
                "slowest_s": slowest,
                "peak_mb": _rss_mb() - before_mb,
                "what": "; ".join(f"{count} x {why}" for why, count in kinds.items()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _tried(target: Target, data: bytes, place: Path) -> tuple[str, str, float]:
    """taken, refused or foreign; of the last, what was raised."""
    path = place / target.name
    path.write_bytes(data)
    began, verdict, why = time.perf_counter(), "taken", ""
    try:
        target.read(path)
    except OURS as error:
        verdict, why = ("foreign", f"two lines: {str(error)[:80]!r}") if "\n" in str(error) else ("refused", str(error))
    except BaseException as error:  # a crash of any kind is what is looked for
        if isinstance(error, KeyboardInterrupt):
            raise
        verdict, why = "foreign", f"{type(error).__name__}: {str(error)[:80]}"
    spent_s = time.perf_counter() - began
    return ("foreign", f"took {spent_s:.0f} s", spent_s) if spent_s > HANG_S else (verdict, why, spent_s)


def targets(place: Path) -> dict[str, Target]:
    """Every reader of a file that may come from elsewhere."""
    space = tiny()
    learner = LEARNERS["protonet"](build(space.ops(space.sample(rng=Random(0)))))
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    folder = bundle.write(place / "bundle", slow=slow, learner=learner, facts={"tests": []})
    manifest = (folder / "manifest.json").read_bytes()
    states = []
    for keep in ("examples", "sums"):
        device = edgemeta_device.Device(folder, keep=keep)
        device.enroll({"a": [np.zeros((12, 12), np.uint8)], "b": [np.full((12, 12), 200, np.uint8)]})
        device.save(place / f"{keep}.npz")
        states.append((place / f"{keep}.npz").read_bytes())
    opened = edgemeta_device.Device(folder)
    np.savez(place / "data.npz", x=np.zeros((40, 1, 4, 4), np.uint8), y=np.repeat(np.arange(20), 2))
    np.savez(place / "names.npz", x=np.ones((6, 4, 4), np.float32), y=np.array(list("aabbcc")))
    data = [(place / f"{name}.npz").read_bytes() for name in ("data", "names")]

    def of_manifest(path: Path) -> None:
        (folder / "manifest.json").write_bytes(path.read_bytes())
        refused: list[Exception] = []
        for read in (bundle.read, edgemeta_device.Device):
            try:
                read(folder)
            except OURS as error:
                refused.append(error)
        if refused:
            raise max(refused, key=lambda error: str(error).count("\n"))

    def settings(path: Path) -> object:
        given = configs.read_toml(path, "search", {"search", "train"})
        return configs.make(configs.Search, given)

    def arrays(path: Path) -> object:
        return load_npz(in_shape=(1, 4, 4), root=path, cache=place, seed=0)

    return {
        "profile": Target([_small_profile()], "device.json", profiles.load, json_of),
        "manifest": Target([manifest], "manifest.json", of_manifest, json_of),
        "state": Target(states, "state.npz", opened.load, npz_of),
        "settings": Target([SETTINGS], "settings.toml", settings, toml_of),
        "data": Target(data, "x.npz", arrays, npz_of),
    }


def _small_profile() -> bytes:
    """A shipped profile with a few of its operators and networks."""
    record = json.loads(profiles.available()["intel-xeon-ort-1t"].read_bytes())
    record["ops"] = dict(list(record["ops"].items())[::40])
    record["nets"], record["status"], record["drift"] = record["nets"][:2], {}, record["drift"][:2]
    return json.dumps(record).encode()


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _vms_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
