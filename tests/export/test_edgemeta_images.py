from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgemeta.data.images import read_image

RULE = {"scale": 1 / 255, "polarity": "as-is", "resize": "stretch", "channels": 1, "height": 12, "width": 12}
INK = {**RULE, "polarity": "ink-high"}


def test_resize_is_pillows_bilinear(images, generator):
    image = torch.randint(0, 256, (31, 47), generator=generator, dtype=torch.uint8).numpy()
    for height, width in ((12, 12), (40, 20), (31, 60)):
        ours = images.resize(image[None].astype(np.float32), (height, width))[0]
        theirs = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(ours - theirs).max() < 1.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "LA", "CMYK", "F"])
def test_files_are_read_as_in_training(images, mode, channels, tmp_path, draw):
    image = Image.fromarray(draw(1, size=24)["low"][0])
    path = tmp_path / ("image.tif" if mode in ("CMYK", "F") else "image.png")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    ours = images.preprocess(path, {**RULE, "channels": channels})
    theirs = read_image(path, (channels, 12, 12)) / 255.0
    assert ours.dtype == np.float32 and ours.shape == (channels, 12, 12)
    assert np.abs(ours - theirs).max() < 1.6 / 255


def test_photographs_are_turned_upright(images, tmp_path, draw):
    upright = Image.fromarray(draw(1, size=24)["low"][0])
    turned, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(images.preprocess(tmp_path / "photo.png", RULE), images.preprocess(upright, RULE))


def test_layouts_agree(images, draw):
    image = draw(1)["low"][0]
    colour = np.repeat(image[:, :, None], 3, 2)
    want = images.preprocess(image, RULE)
    others = (image[None], image[:, :, None], colour, Image.fromarray(image), image / 255.0, image.astype(np.int64))
    for other in others:
        np.testing.assert_allclose(images.preprocess(other, RULE), want, atol=1e-6)
    assert images.preprocess(image, {**RULE, "channels": 3}).shape == (3, 12, 12)
    np.testing.assert_array_equal(images.preprocess(image > 100, RULE)[0], image > 100)


def test_dark_ink_on_paper_is_turned_over(images, draw):
    image = draw(1)["low"][0]
    np.testing.assert_allclose(images.preprocess(255 - image, INK), images.preprocess(image, INK), atol=1e-6)
    np.testing.assert_allclose(images.preprocess(255 - image, RULE), 1 - images.preprocess(image, RULE), atol=1e-6)


def test_what_is_kept_of_8_bits_are_8_bits(images, draw):
    image = draw(1, size=24)["low"][0]
    for rule in (RULE, INK):
        for given_image, worst in ((image[6:18, 6:18], 1e-6), (255 - image[6:18, 6:18], 1e-6), (image, 0.501 / 255)):
            kept = images.compact(given_image, rule)
            assert kept.dtype == np.uint8
            assert np.abs(images.scaled(kept, rule) - images.preprocess(given_image, rule)).max() < worst
    np.testing.assert_array_equal(images.compact(image[6:18, 6:18], RULE)[0], image[6:18, 6:18])
    assert images.compact(image / 255.0, RULE).dtype == np.float32
    assert images.compact(255 - image, {**INK, "scale": 1 / 100}).dtype == np.float32  # 1 - x is below 0


BAD = {
    "text": np.array(["text"]),
    "NaN": np.full((12, 12), np.nan),
    "infinite": np.full((12, 12), 1e300),
    "empty": np.zeros((0, 12)),
    "five axes": np.zeros((1, 1, 1, 12, 12)),
    "two channels": np.zeros((2, 12, 12)),
    "a number": 3,
    "ragged": [[1, 2], [3]],
    "nothing": None,
    "complex": np.zeros((12, 12), complex),
    "a mode without a way to gray": Image.new("LAB", (12, 12)),
}


@pytest.mark.parametrize("image", BAD.values(), ids=BAD)
def test_what_is_no_image_is_refused(images, runtime, image, one_line):
    with pytest.raises(runtime.DeviceError) as error:
        images.preprocess(image, RULE)
    one_line(error)


@given(
    data=st.binary(max_size=200),
    magic=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"GIF89a"]),
)
def test_bytes_that_are_no_image_are_one_line(data, magic, tmp_path_factory):
    images = importlib.import_module("edgemeta_images")
    path = tmp_path_factory.getbasetemp() / "noise.png"
    path.write_bytes(magic + data)
    try:
        images.preprocess(path, RULE)
    except images.UnreadableImage as error:
        assert "\n" not in str(error)
