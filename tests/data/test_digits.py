from __future__ import annotations

import numpy as np
import pytest

from edgemeta.data.sources import load


@pytest.mark.parametrize("in_shape", [(1, 28, 28), (3, 20, 32), (1, 8, 8)])
def test_digits_are_for_testing_only(tmp_path, in_shape):
    data = load("digits", in_shape=in_shape, cache=tmp_path)
    assert data.images.shape == (1797, *in_shape) and data.images.dtype == np.uint8
    assert dict(data.splits) == {"test": tuple(range(10))} and data.class_names == tuple("0123456789")
    assert not data.synthetic and list(tmp_path.iterdir()) == []


def test_ink_is_bright_and_a_zero_has_a_hole(tmp_path):
    data = load("digits", cache=tmp_path)
    zero = data.images[data.labels == 0, 0].mean(0)
    assert zero[0].max() == 0 and zero[14, 14] < 60 < 120 < zero.max()
