"""`edgemeta export --ort FOLDER`: a bundle in ORT format, for ONNX Runtime's mobile and minimal builds."""

from __future__ import annotations

from pathlib import Path

from edgemeta import config as configs
from edgemeta.lowering import bundle as bundles
from edgemeta.lowering import to_ort
from edgemeta.lowering.manifest import OPERATORS
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import KIB


def require(target: Path) -> None:
    """Refuse, before anything takes time, a folder that holds what this would delete."""
    bundles.refuse_foreign(target)


def write(config: configs.Export, folder: RunFolder, bundle: Path) -> Told:
    assert config.ort is not None
    made = to_ort.write(bundle, config.ort)
    sizes = ", ".join(f"{graph.file} {made.files[graph.file].bytes / KIB:.1f} KiB" for graph in made.graphs.values())
    found = {name: made.files[graph.file].bytes / KIB for name, graph in made.graphs.items()}
    facts = {"folder": config.ort, "graphs_kib": found, "operators": OPERATORS}
    return told(f"ORT format: {config.ort}: {sizes}; {OPERATORS} for a minimal build", {"ort": facts})
