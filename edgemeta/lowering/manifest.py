"""What a bundle says about itself: the record behind manifest.json, validated on the way in and out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

FORMAT = "edgemeta-bundle"
VERSION = 2
NAME = "manifest.json"
GRAPHS = ("body", "adapt", "classify")  # the first where the learner works on features, which it makes
OPERATORS = "required_operators.config"  # beside graphs in ORT format
MAX_FILE_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 2**20


def _plain(name: str) -> str:
    """A file name that cannot leave the bundle's folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise ValueError("not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorInfo(Record):
    """A graph's input or output; a size that varies is a name: n examples, way classes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    unit: str


class Graph(Record):
    file: FileName
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Normalisation(Record):
    """From an image to the body's input. The rules are spelled out in export/README.md."""

    scale: float = Field(default=1 / 255, gt=0, allow_inf_nan=False)
    polarity: Literal["ink-high", "as-is"] = "as-is"  # ink-high: strokes are near 1 on a background near 0
    resize: Literal["stretch"] = "stretch"  # to height and width, with the triangle filter of Pillow's BILINEAR
    channels: int = Field(gt=0, le=4096)
    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)


class FileInfo(Record):
    sha256: Digest
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)


class Spread(Record):
    median_ms: Milliseconds
    iqr_ms: Milliseconds
    n: int = Field(gt=0)


class Measured(Record):
    """Timings of this bundle's graphs on one machine."""

    body_ms: Spread | None = None  # one image; None where `classify` takes images
    adapt_ms: Spread  # 5 classes of 5 examples, all of the learner's steps
    classify_ms: Spread  # one query, 5 classes
    threads: int
    runtime: str
    device: str
    measured_on: str

    @property
    def inference(self) -> tuple[Spread, ...]:
        """From an image to class scores, one after another."""
        return (self.classify_ms,) if self.body_ms is None else (self.body_ms, self.classify_ms)

    @property
    def inference_ms(self) -> float:
        """Median of each, added up."""
        return sum(part.median_ms for part in self.inference)


class Caps(Record):
    """A `Cost` in JSON: None where there is no cap or no value."""

    latency_ms: Milliseconds | None = None
    ram_kib: float | None = Field(default=None, ge=0)
    flash_kib: float | None = Field(default=None, ge=0)
    energy_mj: float | None = Field(default=None, ge=0)  # as a cost, None: not measured


class Costs(Record):
    predicted: Caps = Caps()
    caps: Caps = Caps()
    graph_kib: float = Field(ge=0)  # the graphs on disk
    adapt_ram_kib: float = Field(ge=0)  # peak of the tensors while 5 classes of 5 examples are adapted to
    measured: Measured | None = None


class LearnerInfo(Record):
    name: str
    steps: int | None = Field(ge=0, le=1000)  # None: one for each row of the support
    on: Literal["features", "images"]
    sums: bool  # whether fast tensors add up: see `contracts.Learner`


class Checked(Record):
    """Largest difference between torch and ONNX Runtime on fresh data, as `check` has it; an int8 body is compared with
    its own arithmetic in torch."""

    seed: int
    tolerance: float
    body: float | None = None
    adapt: float
    classify: float


class Manifest(Record):
    format: Literal["edgemeta-bundle"]
    version: Literal[2]
    id: Digest  # of the graphs, the normalisation and the learner: what a saved state depends on
    learner: LearnerInfo
    normalisation: Normalisation
    graphs: dict[Literal["body", "adapt", "classify"], Graph]
    precision: Literal["fp32", "int8"] = "fp32"  # of the body; what adapts is float
    opset: int
    ir_version: int
    versions: dict[str, str]
    checked: Checked
    costs: Costs
    files: dict[FileName, FileInfo]
    facts: dict[str, JsonValue] = {}


def graphs_of(on: str) -> tuple[str, ...]:
    """The graphs of a bundle whose learner works on features or images.

    >>> graphs_of("features"), graphs_of("images")
    (('body', 'adapt', 'classify'), ('adapt', 'classify'))
    """
    return GRAPHS if on == "features" else GRAPHS[1:]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bundle_id(manifest: Mapping[str, Any]) -> str:
    """The same few lines run on the device; `manifest` is the JSON object."""
    there = [name for name in GRAPHS if name in manifest["graphs"]]
    graphs = [manifest["files"][manifest["graphs"][name]["file"]]["sha256"] for name in there]
    parts = [graphs, manifest["normalisation"], manifest["learner"]]
    return digest(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())
