from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from edgemeta.data.glyph_select import GRID
from edgemeta.data.glyph_skeleton import PADDING, strokes, templates, thin

BLOCK = np.ones((3, 3))


def _cross(half: int = 3) -> np.ndarray:
    mask = np.zeros((GRID, GRID), np.uint8)
    middle = GRID // 2
    mask[middle - half : middle + half, 8:-8] = mask[8:-8, middle - half : middle + half] = 255
    return mask


def test_skeleton_is_thin_inside_and_keeps_its_pieces(glyphs):
    ink = np.stack([glyph.masks[0] > 127 for glyph in glyphs["test"][::20]])
    skeletons = thin(ink)
    assert not (skeletons & ~ink).any()
    for shape, skeleton in zip(ink, skeletons, strict=True):
        assert label(shape, BLOCK)[1] == label(skeleton, BLOCK)[1]
        assert skeleton.sum() < 0.5 * shape.sum()
        blocks = skeleton[:-1, :-1] & skeleton[1:, :-1] & skeleton[:-1, 1:] & skeleton[1:, 1:]
        assert blocks.sum() <= 0.05 * skeleton.sum()  # crossings may keep one


def test_thinning_leaves_its_input_alone():
    ink = _cross()[None] > 0
    before = ink.copy()
    thin(ink)
    assert (ink == before).all()


def test_cross_has_four_strokes_about_its_centre():
    points, stroke = strokes(thin(_cross()[None] > 0)[0])
    assert len(set(stroke.tolist())) == 4
    assert len(points) == len(stroke)
    np.testing.assert_allclose(points.mean(0), 0, atol=1)
    assert 8 < points.max() < 10.5  # units: the arms end 20 cells from the centre, less the pen's half width


def test_single_line_is_one_stroke():
    mask = np.zeros((GRID, GRID), bool)
    mask[20, 10:40] = True
    assert set(strokes(mask)[1].tolist()) == {0}


def test_field_is_positive_inside_and_measured_in_units():
    made = templates(_cross(half=4)[None])
    assert ((made.field[0] > 0).numpy() == (_cross(half=4) > 127)).all()
    assert made.field[0, GRID // 2, 12].item() == 2.0  # four cells of half a unit to the outline


def test_padding_fills_past_each_own_length():
    line = np.zeros((GRID, GRID), np.uint8)
    line[27:29, 20:30] = 255
    made = templates(np.stack([_cross(), line]))
    own = int(made.length[1])
    assert own < int(made.length[0]) == made.points.shape[1]
    assert (made.points[1, own:] == PADDING).all() and (made.points[1, :own].abs() < 14).all()
