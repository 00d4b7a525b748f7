"""From image files and small gray arrays to the pixels a network sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from edgemeta.errors import BadData
from edgemeta.types import Shape

MODES = {1: "L", 3: "RGB"}
_BATCH = 4096


def read_image(path: Path, in_shape: Shape) -> np.ndarray:
    """(C, H, W) uint8 of an image file: upright as its EXIF says, on white where transparent, stretched bilinearly.

    Any error of Pillow is passed on: its decoders raise many kinds for a damaged file.
    """
    channels, height, width = in_shape
    with Image.open(path) as file:
        image = _as_mode(ImageOps.exif_transpose(file), MODES[channels])
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """8-bit pixels in `mode`; Pillow alone would clip 16-bit ones and show what transparency hides."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        values = values * (255 / 65535) if values.max() > 255 else values
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def check_image_shape(in_shape: Shape, source: str) -> None:
    if in_shape[0] not in MODES:
        raise BadData(f"{source} gives images of 1 or 3 channels, not {in_shape[0]}; set in_shape to 1xHxW or 3xHxW")


def resize(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, h, w) uint8 -> (n, *size) uint8, bilinear with antialiasing; unchanged where it already has that size."""
    if gray.shape[1:] == size:
        return gray
    out = np.empty((len(gray), *size), np.uint8)
    for start in range(0, len(gray), _BATCH):
        part = torch.from_numpy(gray[start : start + _BATCH]).float()[:, None]
        scaled = F.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)
        out[start : start + _BATCH] = (scaled[:, 0] + 0.5).to(torch.uint8).numpy()
    return out
