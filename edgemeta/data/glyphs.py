"""The built-in data set: synthetic handwriting in the scripts of bundled fonts, rendered once and cached."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from edgemeta import terminal
from edgemeta.data.archive import DAMAGED, read_arrays
from edgemeta.data.dataset import BYTE, Dataset, with_channels
from edgemeta.data.glyph_render import render
from edgemeta.data.glyph_select import SCRIPTS, Glyph, GlyphClass, glyphs_of, select
from edgemeta.data.glyph_skeleton import Templates, templates
from edgemeta.files import write_bytes
from edgemeta.types import Shape

VERSION = 1  # raise it when a change alters the pixels: caches of older versions are left alone
IMAGES_PER_CLASS = {"train": 40, "val": 20, "test": 20}
_ARRAYS = ("images", "labels", "names", "split")
_BATCH = 1024


def load_glyphs(*, in_shape: Shape, root: Path | None, cache: Path, seed: int) -> Dataset:
    """One class per character and, in training, per quarter turn that is a new shape; whole scripts are held out.

    Ink is 255 on 0. `root` is not used. The first call renders for about ten seconds on one core; later ones read the
    file that it left in `cache`.
    """
    channels, height, width = in_shape
    path = Path(cache) / f"glyphs-v{VERSION}-{height}x{width}-seed{seed}.npz"
    stored = _read(path, (height, width))
    if stored is None:
        stored = render_all((height, width), seed=seed)
        write_bytes(path, _packed(stored))
    names = tuple(map(str, stored["names"]))
    of = stored["split"].tolist()
    splits = {split: tuple(i for i, own in enumerate(of) if own == split) for split in SCRIPTS}
    images = with_channels(stored["images"], channels)
    return Dataset("glyphs", images, stored["labels"], names, splits, BYTE, synthetic=True, ink_high=True)


def render_all(size: tuple[int, int], *, seed: int) -> dict[str, np.ndarray]:
    """The arrays of a cache file: images (n, *size) uint8, labels (n,) int64, and per class its name and split."""
    rng = torch.Generator().manual_seed(seed)
    found = {split: glyphs_of(split) for split in SCRIPTS}
    chosen = select(found)
    images, labels = [], []
    names: list[str] = []
    splits: list[str] = []
    for split, per_class in IMAGES_PER_CLASS.items():
        images.append(_render_split(found[split], chosen[split], size, per_class, rng))
        labels.append(len(names) + np.repeat(np.arange(len(chosen[split])), per_class))
        names += [_name(found[split][c.glyph], c) for c in chosen[split]]
        splits += [split] * len(chosen[split])
    joined = {"images": np.concatenate(images), "labels": np.concatenate(labels).astype(np.int64)}
    return {**joined, "names": np.array(names), "split": np.array(splits)}


def _name(glyph: Glyph, chosen: GlyphClass) -> str:
    return glyph.name + (f", turned {90 * chosen.turn} deg" if chosen.turn else "")


def _render_split(
    glyphs: list[Glyph], classes: list[GlyphClass], size: tuple[int, int], per_class: int, rng: torch.Generator
) -> np.ndarray:
    """(classes * per_class, *size) uint8, class by class; each image in a random style of its class."""
    made, first = _templates(glyphs, classes)
    pick = torch.rand(len(classes), per_class, generator=rng)
    styles = [torch.tensor([first[c.glyph] + style for style in c.styles]) for c in classes]
    index = torch.stack([own[(u * len(own)).long()] for own, u in zip(styles, pick, strict=True)]).view(-1)
    turns = torch.tensor([c.turn for c in classes]).repeat_interleave(per_class)
    images = np.empty((len(index), *size), np.uint8)
    where = torch.arange(len(index))
    batches = [part for turn in range(4) for part in where[turns == turn].split(_BATCH) if len(part)]
    for part in terminal.bar(batches, desc="rendering glyphs", leave=False):
        turn = int(turns[part[0]])
        drawn = render(made, index[part], size[::-1] if turn % 2 else size, rng=rng)
        images[part.numpy()] = (torch.rot90(drawn, turn, (1, 2)) * 255 + 0.5).to(torch.uint8).numpy()
    return images


def _templates(glyphs: list[Glyph], classes: list[GlyphClass]) -> tuple[Templates, dict[int, int]]:
    """Templates of every glyph in use, and the number of each glyph's first one."""
    used = sorted({c.glyph for c in classes})
    counts = [len(glyphs[g].masks) for g in used]
    first = dict(zip(used, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    return templates(np.concatenate([glyphs[g].masks for g in used])), first


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read(path: Path, size: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file; None where it is absent, cut short or of another make, so that it is written anew."""
    try:
        stored = dict(zip(_ARRAYS, read_arrays(path, *_ARRAYS), strict=True))
    except DAMAGED:
        return None
    whole = stored["images"].shape == (len(stored["labels"]), *size) and stored["images"].dtype == np.uint8
    return stored if whole else None
