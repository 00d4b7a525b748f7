from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgemeta.data.images import read_image, resize


@pytest.mark.parametrize(
    ("mode", "color"), [("L", 100), ("RGB", (100, 100, 100)), ("1", 255), ("P", 3), ("RGBA", (100, 100, 100, 255))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_shape_asked_for(tmp_path, mode, color, channels):
    path = tmp_path / "image.png"
    Image.new(mode, (7, 5), color).save(path)
    pixels = read_image(path, (channels, 6, 9))
    assert pixels.shape == (channels, 6, 9) and pixels.dtype == np.uint8
    assert mode == "P" or np.ptp(pixels) == 0


def test_16_bit_gray_is_scaled_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(path)
    assert read_image(path, (1, 4, 4)).tolist() == [[[128] * 4] * 4]


def test_transparency_shows_white(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(path)
    assert (read_image(path, (1, 4, 4)) == 255).all()


def test_photo_is_turned_upright_by_its_exif(tmp_path):
    path = tmp_path / "phone.jpg"
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    Image.fromarray(pixels).save(path, exif=exif)
    upright = read_image(path, (1, 16, 16))[0]
    assert upright[:6].max() < 30 and upright[10:].min() > 220


@given(level=st.integers(0, 255), height=st.integers(4, 20), width=st.integers(4, 20))
def test_resize_keeps_a_flat_image_flat(level, height, width):
    gray = np.full((3, 9, 7), level, np.uint8)
    assert (resize(gray, (height, width)) == np.full((3, height, width), level)).all()


def test_resize_to_its_own_size_changes_nothing():
    gray = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4)
    assert resize(gray, (5, 4)) is gray
