"""From an image, whatever it is, to what a bundle's network takes. Needs numpy; Pillow where images are files."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from edgemeta_files import DeviceError, Name, line

Image = Any  # an array, a path or a Pillow image
Rule = Mapping[str, Any]  # the manifest's `normalisation`


class UnreadableImage(DeviceError):
    """A file that no image can be read from."""


def preprocess(image: Image, rule: Rule) -> np.ndarray:
    """Any image as the network's input (C, H, W) float32, by the manifest's normalisation."""
    return _normalised(as_array(image, rule["channels"]), rule)


def compact(image: Image, rule: Rule) -> np.ndarray:
    """As `preprocess`, to be kept: uint8 (C, H, W), to be multiplied by `scale`, of images that came as uint8."""
    raw = as_array(image, rule["channels"])
    x = _normalised(raw, rule)
    if raw.dtype != np.uint8:
        return x
    codes = np.rint(x / np.float32(rule["scale"]))
    return x if codes.min() < 0 or codes.max() > 255 else codes.astype(np.uint8)


def scaled(x: np.ndarray, rule: Rule) -> np.ndarray:
    """What `compact` gave, as float32."""
    return x * np.float32(rule["scale"]) if x.dtype == np.uint8 else x


def as_array(image: Image, channels: int) -> np.ndarray:
    """The numbers of an image file, a Pillow image or whatever numpy takes for an array."""
    try:
        if isinstance(image, (str, os.PathLike)):
            return read_image(image, channels)
        array = from_pillow(image, channels) if hasattr(image, "convert") else np.asarray(image)
    except (ValueError, TypeError, OSError) as error:
        raise DeviceError(f"an image is no array of numbers ({line(error)}); pass (H, W) or (H, W, 3)") from None
    if array.dtype.kind not in "buif":
        raise DeviceError(f"an image is an array of {array.dtype}; pass numbers")
    return array


def read_image(path: Name, channels: int) -> np.ndarray:
    """An image file as uint8 (H, W) for one channel, else (H, W, 3), upright."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DeviceError(f"reading {path} needs Pillow; pip install pillow, or pass arrays") from None
    try:
        with Image.open(path) as file:
            return from_pillow(ImageOps.exif_transpose(file), channels)
    except Exception as error:  # decoders raise errors of many kinds for a damaged file
        why = line(error).replace(f" {os.fspath(path)!r}", "")  # it is named already
        raise UnreadableImage(f"{path} is not a readable image ({why})") from None


def from_pillow(image: Any, channels: int) -> np.ndarray:
    """A Pillow image as an array, transparency laid on white; 16-bit and float pixels as floats in 0..1."""
    if image.mode[0] in "IF":
        deep = np.asarray(image, np.float32)
        return (deep / (65535.0 if deep.max(initial=0.0) > 255.0 else 255.0)).clip(0.0, 1.0)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.float32)
        return np.rint(255.0 + (rgba[..., :3] - 255.0) * rgba[..., 3:] / 255.0).astype(np.uint8)
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _normalised(image: np.ndarray, rule: Rule) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is told below
        x = _channels(image.astype(np.float32), rule["channels"])
    if image.dtype.kind in "ui":  # floats and booleans are taken as scaled already
        x *= np.float32(rule["scale"])
    if not x.size or not np.isfinite(x).all():
        raise DeviceError("an image is empty or holds NaN; leave it out")
    border = np.concatenate([x[:, [0, -1]].ravel(), x[:, :, [0, -1]].ravel()])
    if rule["polarity"] == "ink-high" and np.median(border) > 0.5:
        x = 1.0 - x  # the border is light: ink on paper
    if x.shape[1:] != (rule["height"], rule["width"]):
        x = resize(x, (rule["height"], rule["width"]))
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
