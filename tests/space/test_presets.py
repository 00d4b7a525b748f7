"""Well-known nets are points of the default space, with the sizes their papers give."""

from __future__ import annotations

import pytest

from edgemeta.space.presets import LANDMARKS, SPACES, conv4_64, edge, mobile, tapered


@pytest.mark.parametrize("name", LANDMARKS)
def test_landmarks_are_points_of_edge(name):
    space = edge()
    arch = LANDMARKS[name](space)
    assert space.arch(space.settings(arch)) == arch
    assert space.ops(arch)[-1].out_shape[1:] == (1, 1)


@pytest.mark.parametrize(("landmark", "widths"), [(tapered, (16, 32, 64, 128)), (conv4_64, (64,) * 4)])
def test_four_conv_nets_by_hand(landmark, widths):
    space = edge()
    ops = space.ops(landmark(space))
    assert [op.kind for op in ops] == ["conv", "maxpool"] * 4
    assert [op.out_shape for op in ops[1::2]] == [
        (width, size, size) for width, size in zip(widths, (14, 7, 3, 1), strict=True)
    ]
    fan_in = (1, *widths[:-1])
    macs = [9 * c * w * size**2 for c, w, size in zip(fan_in, widths, (28, 14, 7, 3), strict=True)]
    assert [op.macs for op in ops[::2]] == macs


def test_tapered_has_97_thousand_weights():
    space = edge()
    assert sum(op.weight_bytes for op in space.ops(tapered(space))) / 4 == pytest.approx(97e3, rel=0.01)


def test_mobile_has_residuals_and_strides():
    space = edge()
    ops = space.ops(mobile(space))
    assert sum(op.kind == "add" for op in ops) == 4
    assert sum(op.stride == 2 for op in ops) == 4
    assert ops[-1].kind == "gap"


@pytest.mark.parametrize("name", SPACES)
def test_registry_and_space_agree_on_the_name(name):
    assert SPACES[name]().name.startswith(f"{name}-")
