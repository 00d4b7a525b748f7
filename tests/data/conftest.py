"""The characters of the built-in data, drawn and chosen once for all tests of this folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgemeta.data import glyphs as glyphs_module
from edgemeta.data.glyph_select import SCRIPTS, Glyph, GlyphClass, glyphs_of, select


@pytest.fixture(scope="session")
def glyphs() -> dict[str, list[Glyph]]:
    return {split: glyphs_of(split) for split in SCRIPTS}


@pytest.fixture(scope="session")
def chosen(glyphs) -> dict[str, list[GlyphClass]]:
    return select(glyphs)


@pytest.fixture
def few_glyphs(glyphs, monkeypatch):
    """Ten real characters per split, so that a whole data set renders in moments."""
    monkeypatch.setattr(glyphs_module, "glyphs_of", lambda split: glyphs[split][:10])


@pytest.fixture
def picture_folder(tmp_path):
    """Writes root/<class>/<n>.png of one gray level; returns the root."""

    def write(counts: dict[str, int], *, level: int = 40, size=(10, 8)):
        root = tmp_path / "photos"
        for name, count in counts.items():
            (root / name).mkdir(parents=True)
            for n in range(count):
                pixels = np.full(size, level, np.uint8)
                pixels[3:5, 3:5] = 255 - level
                Image.fromarray(pixels).save(root / name / f"{n}.png")
        return root

    return write
