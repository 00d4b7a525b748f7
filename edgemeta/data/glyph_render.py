"""Images of glyph templates as a hand might have made them: half with varied outlines, half as pen strokes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from edgemeta.data.glyph_select import GRID
from edgemeta.data.glyph_skeleton import MAX_STROKES, PADDING, UNITS_PER_CELL, Templates

UNITS = 28  # an image's shorter side
WAVES = 4  # that an elastic displacement is made of
PEN_BATCH = 32  # images whose pixel-to-point distances stay in the processor's cache


@dataclass(frozen=True)
class Recipe:
    """Ranges of the variation; lengths in units (an image is 28 units wide, a glyph 20)."""

    rotation_deg: float = 15.0
    log_scale: tuple[float, float] = (math.log(0.8), math.log(1.15))
    log_aspect: float = 0.12
    shear: float = 0.15
    shift: float = 1.5
    elastic: float = 1.2  # amplitude of the smooth displacement
    thickness: float = 0.9  # offset of the outline
    pen_share: float = 0.5  # of images drawn along the skeleton
    pen_radius: float = 0.85
    pen_radius_range: float = 0.35
    stroke_turn: float = 0.10  # radians, standard deviation per stroke
    stroke_log_scale: float = 0.08
    stroke_shift: float = 0.6


MIX = Recipe()


def render(made: Templates, index: Tensor, size: tuple[int, int], *, rng: Generator, recipe: Recipe = MIX) -> Tensor:
    """Random images of templates `index` (n,) -> (n, *size) float in 0..1, ink = 1."""
    pixels, unit = _pixels(size)
    images = torch.empty(len(index), len(pixels))
    pen = torch.rand(len(index), generator=rng) < recipe.pen_share
    outlined, drawn = (~pen).nonzero()[:, 0], pen.nonzero()[:, 0]
    images[outlined] = _outlines(made, index[outlined], pixels, unit, recipe, rng)
    by_length = drawn[made.length[index[drawn]].argsort()]  # alike lengths, little padding
    for batch in by_length.split(PEN_BATCH) if len(drawn) else ():
        images[batch] = _pen(made, index[batch], pixels, unit, recipe, rng)
    return images.view(-1, *size)


def _pixels(size: tuple[int, int]) -> tuple[Tensor, float]:
    """Centres (h*w, 2) of an image's pixels as (x, y) in units, and the units of one pixel."""
    unit = UNITS / min(size)
    y, x = (unit * (torch.arange(n) - (n - 1) / 2) for n in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2), unit


def _outlines(made: Templates, index: Tensor, pixels: Tensor, unit: float, recipe: Recipe, rng: Generator) -> Tensor:
    """The template's distance field, looked up where each pixel came from: (n, pixels)."""
    n = len(index)
    affine, shift = _affine(n, recipe, rng)
    source = pixels - shift
    source = (source + _elastic(n, recipe, rng)(source)) @ torch.linalg.inv(affine).transpose(1, 2)
    grid = source / (UNITS_PER_CELL * (GRID - 1) / 2)
    field = made.field[index][:, None]
    inside = F.grid_sample(field, grid[:, None], align_corners=True, padding_mode="border")[:, 0, 0]
    offset = recipe.thickness * _uniform((n, 1), rng)
    visible = recipe.pen_radius - 0.1 - inside.amax(1, keepdim=True)  # never eroded below a thin line
    return _ink(inside + torch.maximum(offset, visible), unit, rng)


def _pen(made: Templates, index: Tensor, pixels: Tensor, unit: float, recipe: Recipe, rng: Generator) -> Tensor:
    """A round pen along the skeleton, stroke by stroke a little displaced: (n, pixels)."""
    n, longest = len(index), int(made.length[index].max())
    points = made.points[index, :longest]
    absent = points[..., :1] == PADDING
    points = _jitter(points, absent, made.stroke[index, :longest], recipe, rng)
    affine, shift = _affine(n, recipe, rng)
    points = (points + _elastic(n, recipe, rng)(points)) @ affine.transpose(1, 2) + shift
    points = points.masked_fill(absent, PADDING)
    own = (points**2).sum(-1)[:, None]  # |pixel - point|^2 = |pixel|^2 + |point|^2 - 2 pixel . point
    cross = torch.baddbmm(own, pixels.expand(n, -1, -1), points.transpose(1, 2), alpha=-2)
    distance = (cross.amin(2) + (pixels**2).sum(-1)).clamp_min(0).sqrt()
    radius = recipe.pen_radius + recipe.pen_radius_range * _uniform((n, 1), rng)
    return _ink(radius - distance, unit, rng)


def _jitter(points: Tensor, absent: Tensor, stroke: Tensor, recipe: Recipe, rng: Generator) -> Tensor:
    """Each stroke turned, scaled and shifted about its own centre: points (n, p, 2), stroke (n, p)."""
    n = len(points)
    to = stroke[..., None].expand(-1, -1, 2)
    totals = torch.zeros(n, MAX_STROKES, 2).scatter_add_(1, to, points.masked_fill(absent, 0))
    counts = torch.zeros(n, MAX_STROKES).scatter_add_(1, stroke, (~absent[..., 0]).float())
    centre = (totals / counts.clamp_min(1)[..., None]).gather(1, to)
    turn = recipe.stroke_turn * torch.randn(n, MAX_STROKES, generator=rng)
    scale = (recipe.stroke_log_scale * torch.randn(n, MAX_STROKES, generator=rng)).exp()
    shift = (recipe.stroke_shift * torch.randn(n, MAX_STROKES, 2, generator=rng)).gather(1, to)
    cosine, sine = ((scale * f(turn)).gather(1, stroke) for f in (torch.cos, torch.sin))
    x, y = (points - centre).unbind(-1)
    return centre + shift + torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)


def _affine(n: int, recipe: Recipe, rng: Generator) -> tuple[Tensor, Tensor]:
    """Random rotation, scale, aspect and shear (n, 2, 2), and shift (n, 1, 2)."""
    angle = math.radians(recipe.rotation_deg) * _uniform((n,), rng)
    low, high = recipe.log_scale
    scale = (low + (high - low) * torch.rand(n, generator=rng)).exp()
    aspect = (recipe.log_aspect * _uniform((n,), rng)).exp()
    shear = recipe.shear * _uniform((n,), rng)
    zero = torch.zeros(n)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 2, 2)
    stretch = torch.stack([scale * aspect, scale * shear, zero, scale / aspect], -1).view(n, 2, 2)
    return rotation @ stretch, recipe.shift * _uniform((n, 1, 2), rng)


def _elastic(n: int, recipe: Recipe, rng: Generator) -> Callable[[Tensor], Tensor]:
    """A smooth displacement per image, (n, p, 2) -> (n, p, 2): plane waves, 14 to 36 units long."""
    direction = 2 * math.pi * torch.rand(n, WAVES, generator=rng)
    frequency = 2 * math.pi / (14 + 22 * torch.rand(n, WAVES, generator=rng))
    phase = 2 * math.pi * torch.rand(n, 1, WAVES, generator=rng)
    amplitude = recipe.elastic / math.sqrt(WAVES) * torch.randn(n, WAVES, 2, generator=rng)
    towards = torch.stack([direction.cos(), direction.sin()], 1) * frequency[:, None]
    return lambda points: torch.baddbmm(phase, points, towards).sin() @ amplitude


def _ink(inside: Tensor, unit: float, rng: Generator) -> Tensor:
    """Distance inside the outline (n, pixels) in units -> ink in 0..1, with an edge about half a pixel wide."""
    softness = unit * (0.28 + 0.20 * torch.rand(len(inside), 1, generator=rng))
    return torch.sigmoid(inside / softness)


def _uniform(shape: tuple[int, ...], rng: Generator) -> Tensor:
    """Uniform in -1..1."""
    return 2 * torch.rand(shape, generator=rng) - 1
