"""A bundle with its graphs in ORT format, which ONNX Runtime's mobile and minimal builds read.

Such builds have no ONNX parser, and only the kernels that `required_operators.config` names. A bundle in ORT format is
a bundle: manifest, runtime and checks are the same.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from edgemeta.errors import BadBundle
from edgemeta.lowering import bundle, card, check, manifest, replace
from edgemeta.lowering.manifest import OPERATORS, Manifest
from edgemeta.types import KIB


def write(source: Path, target: Path) -> Manifest:
    """The bundle at `source` in ORT format at `target`; its graphs answer what those of the source answer."""
    found = bundle.read(source)
    bundle.refuse_foreign(target)
    models = {str(name): (source / graph.file).read_bytes() for name, graph in found.graphs.items()}
    made = {name: converted(name, model) for name, model in models.items()}
    _verify(models, made, bundle.typical(found, models["adapt"]))
    files = {f"{name}.ort": data for name, data in made.items()} | {OPERATORS: operators(made)}
    files |= {name: (source / name).read_bytes() for name in bundle.RUNTIME}
    record = found.model_dump(mode="json")
    for name, graph in record["graphs"].items():
        graph["file"] = f"{name}.ort"
    record["files"] = {name: {"sha256": manifest.digest(data), "bytes": len(data)} for name, data in files.items()}
    record["costs"] |= {"graph_kib": sum(map(len, made.values())) / KIB}
    record["facts"]["onnx"] = found.id
    told = bundle.identified(record, str(target))
    replace.folder(target, files | {manifest.NAME: bundle.as_json(told), card.NAME: card.text(told).encode()})
    return told


def converted(name: str, model: bytes) -> bytes:
    """A graph in ORT format, optimised for any processor: what would suit this one alone is left to the device.

    The bytes of two conversions differ, and so do the ids of two bundles: a state belongs to one of them.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory(prefix="edgemeta-ort-") as place:
        path = Path(place) / f"{name}.ort"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own types, one for each status
            raise BadBundle(f"{name}.onnx: ONNX Runtime does not convert it: {error}; export it again") from error
        return path.read_bytes()


def operators(graphs: Mapping[str, bytes]) -> bytes:
    """The operators and types that graphs in ORT format need, as `build.sh --include_ops_by_config` reads them."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    with tempfile.TemporaryDirectory(prefix="edgemeta-ort-") as place:
        paths = [Path(place) / f"{name}.ort" for name in graphs]
        for path, graph in zip(paths, graphs.values(), strict=True):
            path.write_bytes(graph)
        logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves files open
            create_config_from_models(paths, Path(place) / OPERATORS, enable_type_reduction=True)
        lines = (Path(place) / OPERATORS).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return "\n".join(["# What the graphs of this bundle need.", *kept, ""]).encode()


def _verify(models: Mapping[str, bytes], made: Mapping[str, bytes], feeds: Mapping[str, bundle.Feeds]) -> None:
    for name, model in models.items():
        want, got = (check.run(name, check.load(name, one), feeds[name], "conversion") for one in (model, made[name]))
        for one, other in zip(want, got, strict=True):
            apart = np.abs(one - other).max(initial=0.0) / max(1.0, np.abs(one).max(initial=0.0))
            if not apart <= check.TOLERANCE:
                raise BadBundle(f"{name}.ort differs from {name}.onnx by {apart:.2g}; nothing was written")
