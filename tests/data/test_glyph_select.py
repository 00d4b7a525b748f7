from __future__ import annotations

import numpy as np
import pytest

from edgemeta.data.glyph_select import (
    GRID,
    LONGEST,
    LOOK_ALIKE,
    SCRIPTS,
    describe,
    is_simple,
    looks_like,
    script_of,
)


def _shapes(glyphs, chosen, split):
    """Descriptors of every template that a split's classes are drawn from, turned as they are."""
    return [np.rot90(describe(glyphs[split][c.glyph].masks[list(c.styles)]), c.turn, (1, 2)) for c in chosen[split]]


def test_enough_classes_in_every_split(chosen):
    assert len(chosen["train"]) > 1000 and len(chosen["val"]) >= 50 and len(chosen["test"]) >= 200
    assert sum(c.turn == 0 for c in chosen["train"]) > 400


def test_whole_scripts_are_held_out(glyphs, chosen):
    for split, scripts in SCRIPTS.items():
        assert {glyphs[split][c.glyph].script for c in chosen[split]} == set(scripts)
        assert all(script_of(glyph.character) in scripts for glyph in glyphs[split])


def test_no_training_template_looks_like_a_held_out_one(glyphs, chosen):
    held = np.concatenate(_shapes(glyphs, chosen, "val") + _shapes(glyphs, chosen, "test"))
    train = np.concatenate(_shapes(glyphs, chosen, "train"))
    assert (train.reshape(len(train), -1) @ held.reshape(len(held), -1).T).max() <= LOOK_ALIKE + 1e-5


def test_no_two_classes_share_a_regular_face(glyphs, chosen):
    faces = np.stack(
        [
            np.rot90(describe(glyphs[split][c.glyph].masks[:1])[0], c.turn).ravel()
            for split in SCRIPTS
            for c in chosen[split]
        ]
    )
    alike = faces @ faces.T
    np.fill_diagonal(alike, 0)
    assert alike.max() <= LOOK_ALIKE + 1e-5


def test_only_training_classes_are_turned(chosen):
    assert all(c.turn == 0 for split in ("val", "test") for c in chosen[split])
    assert {c.turn for c in chosen["train"]} == {0, 1, 2, 3}


def test_symmetric_letter_has_one_class(glyphs, chosen):
    turns = {}
    for c in chosen["train"]:
        turns.setdefault(glyphs["train"][c.glyph].character, []).append(c.turn)
    assert all(len(set(own)) == len(own) for own in turns.values())
    assert sum(len(own) == 4 for own in turns.values()) > 50
    assert sum(len(own) == 1 for own in turns.values()) > 20


@pytest.mark.parametrize(
    ("letter", "simple"), [("a", True), ("é", False), ("ß", True), ("\u0133", False), ("ᐄ", True), ("5", False)]
)
def test_composites_are_left_out(letter, simple):
    assert is_simple(letter) == simple


def test_template_is_centred_and_fills_its_grid(glyphs):
    for glyph in glyphs["test"][::25]:
        for mask in glyph.masks:
            assert mask.shape == (GRID, GRID)
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - LONGEST) <= 2
            assert all(abs(span[0] + span[-1] - (GRID - 1)) <= 3 for span in (rows, columns))


def test_descriptor_turns_with_its_mask(glyphs):
    masks = glyphs["train"][7].masks
    turned = describe(np.rot90(masks, 1, (1, 2)))
    np.testing.assert_allclose(turned, np.rot90(describe(masks), 1, (1, 2)), atol=1e-5)


def test_shape_looks_like_itself_in_another_weight_only(glyphs):
    letters = {glyph.character: describe(glyph.masks) for glyph in glyphs["test"]}
    alef, shin = letters["א"], letters["ש"]
    assert looks_like(alef[1:2], alef[:1])[0]
    assert not looks_like(shin, alef).any()
