"""Which characters become classes of the built-in glyph data: 15 scripts of the fonts that matplotlib bundles."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

SCRIPTS = {
    "train": ("CANADIAN", "LATIN", "CYRILLIC", "ARABIC", "GREEK"),
    "val": ("NKO", "LISU", "OLD ITALIC", "COPTIC"),
    "test": ("GEORGIAN", "ARMENIAN", "LAO", "HEBREW", "TIFINAGH", "OGHAM"),
}
FONTS = (  # regular faces first: a class is compared by the first font that has its character
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif-BoldItalic",
    "STIXGeneralItalic",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
)
GRID = 56  # side of a template: twice the 28 units of an image
LONGEST = 40  # longest side of a glyph in its template
FONT_SIZE = 96
MIN_STYLES, MAX_STYLES = 2, 6
BLUR = 1.94  # with the 2x2 average of `describe`, a blur of two template pixels
LOOK_ALIKE = 0.90  # cosine of two descriptors above which two shapes count as the same class
LAST_LETTER = 0x1D000  # beyond lie styled copies of letters (mathematical alphabets)
COMPOSED = (" WITH ", " LIGATURE", "DIGRAPH")
Fonts = list[tuple[ImageFont.FreeTypeFont, set[int]]]


@dataclass(frozen=True)
class Glyph:
    """One character in several styles."""

    character: str
    script: str
    masks: np.ndarray = field(repr=False)  # (styles, GRID, GRID) uint8, ink = 255

    @property
    def name(self) -> str:
        return unicodedata.name(self.character)


@dataclass(frozen=True)
class GlyphClass:
    """A class of the data set: a glyph, turned by `turn` quarter turns counter-clockwise."""

    glyph: int  # position in the list of glyphs
    turn: int
    styles: tuple[int, ...]  # which of its masks are drawn from


def script_of(character: str) -> str | None:
    name = unicodedata.name(character, "")
    return next((s for scripts in SCRIPTS.values() for s in scripts if name.startswith(s + " ")), None)


def is_simple(character: str) -> bool:
    """True for a letter that is not another one with a mark: syllabics are named by their dots, so they are exempt."""
    if unicodedata.category(character) not in ("Lu", "Ll", "Lo", "Lt") or unicodedata.decomposition(character):
        return False
    name = unicodedata.name(character)
    return name.startswith("CANADIAN ") or not any(part in name for part in COMPOSED)


def glyphs_of(split: str) -> list[Glyph]:
    """Every drawable simple character of a split's scripts, script by script, in code point order."""
    fonts = _fonts()
    found = sorted(set().union(*(codes for _, codes in fonts)))
    letters = [chr(code) for code in found if code < LAST_LETTER]
    return [
        Glyph(letter, script, masks)
        for script in SCRIPTS[split]
        for letter in letters
        if script_of(letter) == script and is_simple(letter)
        for masks in _styles(letter, fonts)
    ]


def _fonts() -> Fonts:
    """(font, code points it has) for each of FONTS."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    paths = [Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf" for name in FONTS]
    basic = ImageFont.Layout.BASIC  # the same on machines with and without a text shaping library
    return [
        (ImageFont.truetype(path, FONT_SIZE, layout_engine=basic), set(FT2Font(str(path)).get_charmap()))
        for path in paths
    ]


def _styles(letter: str, fonts: Fonts) -> Iterator[np.ndarray]:
    """The letter's masks (styles, GRID, GRID), or nothing where too few fonts draw it."""
    having = [font for font, codes in fonts if ord(letter) in codes]
    if len(having) < MIN_STYLES:
        return
    masks = [mask for mask in (draw(letter, font) for font in having[:MAX_STYLES]) if mask is not None]
    if len(masks) >= MIN_STYLES:
        yield np.stack(masks)


def draw(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """Mask (GRID, GRID) uint8: longest side LONGEST, centred, aspect kept; None for a glyph without ink."""
    left, top, right, bottom = font.getbbox(letter)
    canvas = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), letter, font=font, fill=255)
    box = canvas.getbbox()
    if box is None:
        return None
    ink = canvas.crop(box)
    scale = LONGEST / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    ink = ink.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    mask = Image.new("L", (GRID, GRID))
    mask.paste(ink, ((GRID - ink.width) // 2, (GRID - ink.height) // 2))
    return np.asarray(mask)


def describe(masks: np.ndarray) -> np.ndarray:
    """Blurred shapes of unit norm, (n, GRID, GRID) uint8 -> (n, GRID/2, GRID/2) float32: a high cosine is a look-alike.

    Averaging 2x2 blocks keeps the centre, so the descriptor of a turned mask is the turned descriptor.
    """
    blurred = gaussian_filter(masks.astype(np.float32), (0, BLUR, BLUR))
    small = blurred.reshape(len(masks), GRID // 2, 2, GRID // 2, 2).mean((2, 4))
    return small / (np.linalg.norm(small, axis=(1, 2), keepdims=True) + 1e-9)


def select(glyphs: dict[str, list[Glyph]]) -> dict[str, list[GlyphClass]]:
    """Classes of each split, none of them a look-alike of another.

    Held-out scripts choose first. A class is new if its regular face looks like none kept so far. Training classes are
    also tried in quarter turns, and lose each style that looks like any style of a held-out class.
    """
    shapes = {split: [describe(glyph.masks) for glyph in found] for split, found in glyphs.items()}
    kept = _new_faces(shapes)
    held = np.concatenate([shapes[split][index] for split, index, _ in kept if split != "train"])
    classes: dict[str, list[GlyphClass]] = {split: [] for split in SCRIPTS}
    for split, index, turn in kept:
        turned = np.rot90(shapes[split][index], turn, (1, 2))
        styles = ~looks_like(turned, held) if split == "train" else np.ones(len(turned), bool)
        if styles.any():
            classes[split].append(GlyphClass(index, turn, tuple(np.flatnonzero(styles).tolist())))
    return classes


def _new_faces(shapes: dict[str, list[np.ndarray]]) -> list[tuple[str, int, int]]:
    """(split, position, turn) of each regular face that looks like none before it, held-out scripts first."""
    turns = (("test", 0), ("val", 0), *(("train", turn) for turn in range(4)))
    tried = [(split, index, turn) for split, turn in turns for index in range(len(shapes[split]))]
    faces = np.stack([np.rot90(shapes[split][index][0], turn).ravel() for split, index, turn in tried])
    alike = faces @ faces.T > LOOK_ALIKE
    new = np.zeros(len(tried), bool)
    for i in range(len(tried)):
        new[i] = not alike[i, new].any()
    return [candidate for candidate, is_new in zip(tried, new, strict=True) if is_new]


def looks_like(shapes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Descriptors (n, s, s), (m, s, s) -> (n,) bool: which of `shapes` look like one of `known`."""
    return (shapes.reshape(len(shapes), -1) @ known.reshape(len(known), -1).T > LOOK_ALIKE).any(1)
