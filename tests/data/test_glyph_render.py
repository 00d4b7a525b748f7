from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgemeta.data.glyph_render import MIX, Recipe, render
from edgemeta.data.glyph_skeleton import templates

STILL = Recipe(0.0, (0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, stroke_turn=0.0, stroke_log_scale=0.0, stroke_shift=0.0)


@pytest.fixture(scope="module")
def made(glyphs):
    return templates(np.concatenate([glyph.masks[:2] for glyph in glyphs["test"][:12]]))


def _render(made, index, size=(28, 28), seed=0, recipe=MIX):
    return render(made, torch.as_tensor(index), size, rng=torch.Generator().manual_seed(seed), recipe=recipe)


def test_seed_decides(made):
    index = [0, 5, 9, 3] * 10
    assert torch.equal(_render(made, index), _render(made, index))
    assert not torch.equal(_render(made, index), _render(made, index, seed=1))


@pytest.mark.parametrize("size", [(28, 28), (12, 12), (40, 40), (20, 32)])
@pytest.mark.parametrize("pen_share", [0.0, 1.0])
def test_every_image_has_ink_on_an_empty_ground(made, size, pen_share):
    images = _render(made, np.arange(24), size, recipe=replace(MIX, pen_share=pen_share))
    assert images.shape == (24, *size)
    assert images.min() >= 0 and images.max() <= 1
    assert images.amax((1, 2)).min() > 0.5
    assert images.median() < 0.1 and 0.02 < images.mean() < 0.4


@pytest.mark.parametrize("pen_share", [0.0, 1.0])
def test_without_variation_the_template_comes_back(made, glyphs, pen_share):
    still = replace(STILL, pen_share=pen_share)
    images = _render(made, [0], recipe=still).numpy()[0]
    mask = glyphs["test"][0].masks[0].reshape(28, 2, 28, 2).mean((1, 3)) / 255
    ink = images > 0.5
    assert mask[ink].mean() > 0.6  # what is drawn lies on the template
    assert images[mask > 0.9].mean() > 0.5  # and the template is covered


def test_pictures_of_one_template_differ_from_each_other(made):
    images = _render(made, [4] * 30).flatten(1)
    distance = torch.cdist(images, images) + 1e3 * torch.eye(30)
    assert distance.min() > 0.5


def test_resolution_changes_pixels_not_geometry(made):
    coarse, fine = (_render(made, [2], size, recipe=STILL)[0] for size in ((28, 28), (56, 56)))
    pooled = torch.nn.functional.avg_pool2d(fine[None, None], 2)[0, 0]
    assert (pooled - coarse).abs().mean() < 0.03
