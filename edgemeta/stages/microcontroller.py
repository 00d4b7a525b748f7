"""`edgemeta export --c FOLDER`: a bundle's network and learner as C, checked and measured before it is in place."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemeta import config as configs
from edgemeta.errors import BadBundle
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle as bundles
from edgemeta.lowering import c_check, c_source, replace, to_c
from edgemeta.lowering.manifest import Manifest
from edgemeta.nets.build import build
from edgemeta.report.tables import table
from edgemeta.search.jobs import load_weights
from edgemeta.space.named import named
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Arch

FIGURES = "figures.json"
UNITS = {"ram_kib": "RAM of an inference", "adapt_ram_kib": "RAM of an adaptation", "flash_kib": "flash"}


def require(target: Path) -> None:
    """Refuse, before anything takes time, a folder that holds what this would delete, and a missing extra."""
    there = {path.name for path in target.iterdir() if not path.name.startswith("build-")} if target.is_dir() else set()
    if foreign := sorted(there - {*to_c.FILES, FIGURES}):
        raise BadBundle(f"{target} holds {foreign[0]}, not of the C program; move it or name another folder with --c")
    if target.exists() and not target.is_dir():
        raise BadBundle(f"{target} is a file; name another folder with --c")
    c_source.require()


def write(config: configs.Export, folder: RunFolder, bundle: Path) -> Told:
    """The C of a bundle to `config.c`, and what it takes; an old one there is replaced in one move."""
    assert config.c is not None
    require(config.c)
    manifest = bundles.read(bundle)
    program = _program(config, folder, bundle, manifest)
    contents = {name: text.encode() for name, text in program.files.items()}
    with tempfile.TemporaryDirectory(prefix="edgemeta-c-") as place:
        for name, data in contents.items():
            (Path(place) / name).write_bytes(data)
        figures = c_check.figures(program, Path(place), manifest.costs, core=config.c_core)
    what = {"bundle": manifest.id, "learner": manifest.learner.name, "rows": config.c_rows, "way": config.c_way}
    contents[FIGURES] = (json.dumps({**what, **figures}, indent=1) + "\n").encode()
    replace.folder(config.c, contents)
    other = "\nits numbers are float32, the bundle's int8" if manifest.precision == "int8" else ""
    return told(text(config.c, figures) + other, {"c": {"folder": config.c, **what, **figures}})


def text(target: Path, figures: Mapping[str, Any]) -> str:
    """What the program takes beside what the manifest said."""
    rows = [
        {"": UNITS[name], "manifest_kib": pair["manifest"], "in_c_kib": pair["here"], "ratio": pair["ratio"]}
        for name, pair in figures["manifest"].items()
        if name in UNITS
    ]
    return "\n".join([f"C: {target}", table(rows), _told("host", figures), _told("emulated", figures)])


def _told(where: str, figures: Mapping[str, Any]) -> str:
    found = figures[where]
    if isinstance(found, str):
        return f"{where}: {found}"
    apart = f"answers within {max(found[name] for name in c_check.DIFFERENCES):.1g} of ONNX Runtime's"
    if "ms" not in found:
        return f"{where}: {apart}"
    spent = ", ".join(f"{name} {ms:.3g} ms" for name, ms in found["ms"].items())
    return f"{where} {figures['core']}: {apart}; {spent} at {found['clock']}; stack {found['stack_kib']:.2g} KiB"


def _program(config: configs.Export, folder: RunFolder, bundle: Path, manifest: Manifest) -> to_c.Program:
    facts: Any = manifest.facts
    net = build(named(facts["space"]).ops(Arch(facts["space"], tuple(facts["picks"]))))
    learner, slow = LEARNERS[manifest.learner.name](net), load_weights(folder.weights_at(facts["weights"]))
    if manifest.precision == "int8":  # the C is float, and so are the answers that it is held to
        graphs = {name: model.SerializeToString() for name, model in bundles.lower(slow, learner).items()}
    else:
        graphs = {str(name): (bundle / graph.file).read_bytes() for name, graph in manifest.graphs.items()}
    sizes = {"rows": config.c_rows, "way": config.c_way, "seed": config.seed}
    named_after = f"bundle {manifest.id[:16]}"
    return to_c.program(learner, slow, graphs, normalisation=manifest.normalisation, name=named_after, **sizes)
