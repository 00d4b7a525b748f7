#!/usr/bin/env python3
"""Run an edgemeta bundle: learn new classes from a few images, predict, keep the state. Needs numpy and onnxruntime.

    device = Device("bundle")
    device.enroll({"cup": [image, image], "pen": [image, image]})
    names, probabilities = device.predict([image])

or, over folders with one directory per class (this needs Pillow):

    python edgemeta_device.py enroll bundle images/ --state state.npz
    python edgemeta_device.py predict bundle photo.png --state state.npz

The format of bundle and state is specified in export/README.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FORMAT, VERSION, STATE_VERSION = "edgemeta-bundle", 1, 1
GRAPHS = ("body", "adapt", "classify")
MAX_MANIFEST_BYTES, MAX_FILE_BYTES, MAX_STEPS = 2**20, 2**28, 1000
BATCH = 1  # images per run of the body: more would take more memory than the bundle says
Image = Any  # an array, a path or a Pillow image


class DeviceError(Exception):
    """Something the user can mend, in one line."""


class UnreadableImage(DeviceError):
    """A file that no image can be read from."""


def read_image(path: str | os.PathLike[str], channels: int) -> np.ndarray:
    """An image file as uint8 (H, W) for one channel, else (H, W, 3), upright."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DeviceError(f"reading {path} needs Pillow; pip install pillow, or pass arrays") from None
    try:
        with Image.open(path) as file:
            return from_pillow(ImageOps.exif_transpose(file), channels)
    except Exception as error:  # decoders raise errors of many kinds for a damaged file
        raise UnreadableImage(f"{path} is not a readable image ({_line(error)})") from None


def from_pillow(image: Any, channels: int) -> np.ndarray:
    """A Pillow image as an array, transparency laid on white; 16-bit and float pixels as floats in 0..1."""
    if image.mode[0] in "IF":
        deep = np.asarray(image, np.float32)
        return (deep / (65535.0 if deep.max(initial=0.0) > 255.0 else 255.0)).clip(0.0, 1.0)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.float32)
        return np.rint(255.0 + (rgba[..., :3] - 255.0) * rgba[..., 3:] / 255.0).astype(np.uint8)
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def preprocess(image: Image, rule: Mapping[str, Any]) -> np.ndarray:
    """Any image as the body's input (C, H, W) float32, by the manifest's normalisation."""
    channels, size = rule["channels"], (rule["height"], rule["width"])
    if isinstance(image, (str, os.PathLike)):
        image = read_image(image, channels)
    elif hasattr(image, "convert"):
        image = from_pillow(image, channels)
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        raise DeviceError(f"an image is an array of {image.dtype}; pass numbers")
    x = _channels(image.astype(np.float32), channels)
    if image.dtype.kind in "ui":  # floats and booleans are taken as scaled already
        x *= np.float32(rule["scale"])
    if not x.size or not np.isfinite(x).all():
        raise DeviceError("an image is empty or holds NaN; leave it out")
    border = np.concatenate([x[:, [0, -1]].ravel(), x[:, :, [0, -1]].ravel()])
    if rule["polarity"] == "ink-high" and np.median(border) > 0.5:
        x = 1.0 - x  # the border is light: ink on paper
    if x.shape[1:] != size:
        x = resize(x, size)
    return np.ascontiguousarray(x, np.float32)


def _channels(x: np.ndarray, channels: int) -> np.ndarray:
    """(H, W), (H, W, 1|3|4) or (C, H, W) as (channels, H, W): grey is repeated, colour weighed to grey (ITU-R 601)."""
    if x.ndim == 2:
        x = x[None]
    elif x.ndim == 3 and x.shape[0] != channels and x.shape[2] in (1, 3, 4):
        x = np.moveaxis(x[..., :3], 2, 0)
    if x.ndim == 3 and x.shape[0] == 3 and channels == 1:
        x = np.tensordot(np.array([[0.299, 0.587, 0.114]], np.float32), x, 1)
    if x.ndim == 3 and x.shape[0] == 1 and channels == 3:
        x = np.repeat(x, 3, 0)
    if x.ndim != 3 or x.shape[0] != channels:
        raise DeviceError(f"an image of shape {x.shape} does not fit {channels} channels; pass (H, W) or (H, W, 3)")
    return x


def resize(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Separable triangle filter, widened when shrinking so that every pixel counts (Pillow's BILINEAR)."""
    return _weights(x.shape[1], size[0]) @ x @ _weights(x.shape[2], size[1]).T


@functools.lru_cache(maxsize=64)
def _weights(old: int, new: int) -> np.ndarray:
    """(new, old) rows that sum to 1."""
    centres = (np.arange(new) + 0.5) * old / new
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(old / new, 1.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def load_bundle(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the graphs of a bundle; refused where a file is not what the manifest says."""
    folder = Path(folder)
    try:
        manifest = json.loads(_bounded(folder / "manifest.json", MAX_MANIFEST_BYTES))
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
            raise DeviceError(f"{folder} is bundle version {manifest['version']}, not {VERSION}; use its own runtime")
        graphs = {name: _verified(folder, manifest, name) for name in GRAPHS}
        digests = [manifest["files"][manifest["graphs"][name]["file"]]["sha256"] for name in GRAPHS]
        parts = [digests, manifest["normalisation"], manifest["learner"]]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        if manifest["id"] != hashlib.sha256(text.encode()).hexdigest():
            raise DeviceError(f"{folder}: the manifest was changed after it was written; export the bundle again")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DeviceError(f"{folder}: the manifest is damaged ({_line(error)}); export the bundle again") from None
    return manifest, graphs


def _verified(folder: Path, manifest: Mapping[str, Any], graph: str) -> bytes:
    name = manifest["graphs"][graph]["file"]
    if Path(name).name != name or "\\" in name:
        raise DeviceError(f"{folder}: {name!r} is not a plain file name; export the bundle again")
    info = manifest["files"][name]
    data = _bounded(folder / name, min(int(info["bytes"]), MAX_FILE_BYTES))
    if len(data) != info["bytes"] or hashlib.sha256(data).hexdigest() != info["sha256"]:
        raise DeviceError(f"{folder / name} is not the file its manifest describes; copy or export the bundle again")
    return data


def _bounded(path: Path, limit: int) -> bytes:
    """The bytes of a plain file that is not larger than `limit`."""
    try:
        if path.is_symlink() or not path.is_file():
            raise DeviceError(f"{path} is missing or not a plain file; check the path")
        if path.stat().st_size > limit:
            raise DeviceError(f"{path} is larger than {limit} bytes; copy or export it again")
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"cannot read {path}: {error.strerror}") from None


def _session(name: str, model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a type of its own for each status
        raise DeviceError(f"onnxruntime {onnxruntime.__version__} cannot load {name}.onnx: {_line(error)}") from None


class Device:
    """A bundle and what it has learned. Every change re-adapts from the start on all examples, kept as features."""

    def __init__(self, bundle_folder: str | os.PathLike[str], threads: int = 1):
        self.manifest, graphs = load_bundle(bundle_folder)
        self._sessions = {name: _session(name, model, threads) for name, model in graphs.items()}
        body, adapt = self._sessions["body"], self._sessions["adapt"]
        self._tensors = [tensor.name for tensor in adapt.get_outputs()]
        dim, shape = body.get_outputs()[0].shape[1], body.get_inputs()[0].shape[1:]
        self._set(np.zeros((0, dim), np.float32), np.zeros(0, np.int64), [])
        try:  # a blank image through all three graphs: what does not fit together is told now
            fits = [self.manifest["normalisation"][key] for key in ("channels", "height", "width")] == shape
            if not fits or not 0 <= self.manifest["learner"]["steps"] <= MAX_STEPS:
                raise ValueError("sizes or steps out of range")
            self.enroll([np.zeros(shape, np.uint8)], "blank")
            self.predict([np.zeros(shape, np.uint8)])
            self.forget("blank")
        except Exception as error:
            raise DeviceError(f"{bundle_folder} does not run ({_line(error)}); export the bundle again") from None

    @property
    def names(self) -> list[str]:
        """The classes in the order of their first example."""
        return list(self._names)

    @property
    def counts(self) -> dict[str, int]:
        """How many examples are kept of each class."""
        return {name: int((self._labels == i).sum()) for i, name in enumerate(self._names)}

    def enroll(self, images: Any, labels: str | Sequence[str] | None = None) -> None:
        """Learn from a mapping of name -> images, or from images and their names; new names become new classes."""
        flat, given = _pairs(images, labels)
        if not flat:
            raise DeviceError("no images to enroll; pass at least one for a class")
        features = self.features(flat)
        names = list(dict.fromkeys([*self._names, *given]))
        fresh = np.array([names.index(name) for name in given], np.int64)
        self._set(np.concatenate([self._features, features]), np.concatenate([self._labels, fresh]), names)

    def forget(self, name: str) -> None:
        """Drop a class and its examples."""
        if name not in self._names:
            raise DeviceError(f"no class {name!r} to forget; enrolled: {', '.join(self._names) or 'none'}")
        at = self._names.index(name)
        keep = self._labels != at
        labels = self._labels[keep]
        self._set(self._features[keep], labels - (labels > at), self._names[:at] + self._names[at + 1 :])

    def predict(self, images: Sequence[Image]) -> tuple[list[str], np.ndarray]:
        """The most probable class of each image, and its probability (n,)."""
        scores = self.probabilities(images)
        best = scores.argmax(1)
        return [self._names[i] for i in best], scores.max(1)

    def probabilities(self, images: Sequence[Image]) -> np.ndarray:
        """(n, way), columns in the order of `names`."""
        logits = self.logits(self.features(images))
        scores = np.exp(logits - logits.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def features(self, images: Sequence[Image]) -> np.ndarray:
        """(n, dim) from the body, in batches."""
        parts = [self._features[:0]]
        for i in range(0, len(images), BATCH):
            x = np.stack([preprocess(image, self.manifest["normalisation"]) for image in images[i : i + BATCH]])
            parts.append(self._sessions["body"].run(None, {"x": x})[0])
        return np.concatenate(parts)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, way) from features."""
        if not self._names:
            raise DeviceError("no classes are enrolled; enroll some images first")
        return self._sessions["classify"].run(None, {"features": features, **self._fast})[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state under a temporary name, then rename: a kill leaves the old state or the new one."""
        target, buffer, temporary = Path(path), io.BytesIO(), ""
        head = {"version": STATE_VERSION, "bundle": self.manifest["id"], "names": self._names}
        text = np.frombuffer(json.dumps(head).encode(), np.uint8)
        np.savez(buffer, head=text, features=self._features, labels=self._labels)
        try:
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(buffer.getvalue())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise DeviceError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from None

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace what was learned by a saved state of this very bundle."""
        data = _bounded(Path(path), MAX_FILE_BYTES)
        try:
            features, labels, names = _state(data, self.manifest["id"], self._features.shape[1], str(path))
        except (ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError, zipfile.error) as error:
            raise DeviceError(f"{path} is damaged ({_line(error)}); use a copy or enroll again") from None
        self._set(features, labels, names)

    def _set(self, features: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
        """Adapt, then take over: an error leaves the old state."""
        fast: dict[str, np.ndarray] = {}
        if names:
            onehot = np.eye(len(names), dtype=np.float32)[labels]
            steps = np.array(self.manifest["learner"]["steps"], np.int64)
            feeds = {"features": features, "onehot": onehot, "steps": steps}
            fast = dict(zip(self._tensors, self._sessions["adapt"].run(self._tensors, feeds)))
        self._features, self._labels, self._names, self._fast = features, labels, names, fast


def _pairs(images: Any, labels: str | Sequence[str] | None) -> tuple[list[Image], list[str]]:
    """Images and their class names, one by one."""
    if isinstance(images, Mapping):
        labels = [name for name, several in images.items() for _ in several]
        images = [image for several in images.values() for image in several]
    names = [labels] * len(images) if isinstance(labels, str) else list(labels or ())
    if len(images) != len(names):
        raise DeviceError(f"{len(images)} images but {len(names)} labels; pass one name for each image")
    if not all(isinstance(name, str) and name for name in names):
        raise DeviceError("a label is not a name; pass non-empty strings")
    return list(images), names


def _state(data: bytes, bundle: str, dim: int, path: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features, labels and names of a saved state, each checked."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(item.file_size for item in archive.infolist()) > MAX_FILE_BYTES:
            raise ValueError("too large")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        head, features, labels = json.loads(arrays["head"].tobytes()), arrays["features"], arrays["labels"]
    if (head["version"], head["bundle"]) != (STATE_VERSION, bundle):
        raise DeviceError(
            f"{path} is of another bundle or version; load the bundle it was learned with or enroll again"
        )
    names = head["names"]
    typed = (features.dtype, labels.dtype, labels.ndim) == (np.float32, np.int64, 1)
    if not typed or features.shape != (len(labels), dim) or not np.isfinite(features).all():
        raise ValueError("features and labels do not fit")
    if not all(isinstance(name, str) for name in names) or set(labels.tolist()) != set(range(len(set(names)))):
        raise ValueError("labels and names do not fit")
    return features, labels, list(names)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and its folders, in order of their names; hidden ones are passed over."""
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [folder / path for path in inside if not any(part.startswith(".") for part in path.parts)]


def readable(device: Device, paths: Sequence[Path]) -> dict[Path, np.ndarray]:
    """The images that can be read; the others are named and counted on stderr."""
    images = {}
    for path in paths:
        try:
            images[path] = read_image(path, device.manifest["normalisation"]["channels"])
        except UnreadableImage as error:
            print(f"skipped: {error}", file=sys.stderr)
    if len(images) < len(paths):
        print(f"skipped {len(paths) - len(images)} of {len(paths)} images", file=sys.stderr)
    return images


def run_info(device: Device, arguments: argparse.Namespace) -> None:
    for part in ("learner", "normalisation", "costs", "facts", "versions"):
        print(f"{part:14} {json.dumps(device.manifest.get(part), ensure_ascii=False)}")


def run_enroll(device: Device, arguments: argparse.Namespace) -> None:
    if not arguments.folder.is_dir():
        raise DeviceError(f"{arguments.folder} is not a folder; name one with a directory of images for each class")
    if arguments.state.exists():
        device.load(arguments.state)
    root = arguments.folder
    images = readable(device, [path for path in files_below(root) if path.parent != root])
    if not images:
        raise DeviceError(f"{root} holds no readable image in a class directory; add some")
    device.enroll(list(images.values()), [path.relative_to(root).parts[0] for path in images])
    device.save(arguments.state)
    print(f"{len(images)} images enrolled; examples by class: {json.dumps(device.counts, ensure_ascii=False)}")


def run_predict(device: Device, arguments: argparse.Namespace) -> None:
    device.load(arguments.state)
    paths = [path for given in arguments.images for path in (files_below(given) if given.is_dir() else [given])]
    images = readable(device, paths)
    if not images:
        raise DeviceError("no readable image to predict; name image files or folders of them")
    names, probabilities = device.predict(list(images.values()))
    for path, name, probability in zip(images, names, probabilities):
        print(f"{path}\t{name}\t{probability:.3f}")
    right = [name == path.parent.name for path, name in zip(images, names) if path.parent.name in device.names]
    if right:
        print(f"{sum(right)} of {len(right)} are what their folder is called", file=sys.stderr)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Learn and predict with an edgemeta bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="what the bundle is")
    enroll = commands.add_parser("enroll", help="learn the classes of a folder, in addition to those of the state")
    predict = commands.add_parser("predict", help="name images: path, class and probability in each line")
    for command, run in ((info, run_info), (enroll, run_enroll), (predict, run_predict)):
        command.add_argument("bundle", type=Path)
        command.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
        command.set_defaults(run=run)
    enroll.add_argument("folder", type=Path, help="one directory of images for each class")
    predict.add_argument("images", type=Path, nargs="+", help="image files or folders of them")
    for command in (enroll, predict):
        command.add_argument("--state", type=Path, default="state.npz", help="what was learned (default: state.npz)")
    arguments = parser.parse_args(given)
    try:
        arguments.run(Device(arguments.bundle, max(1, arguments.threads)), arguments)
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
