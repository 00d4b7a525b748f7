"""The convolution that is written by hand, against torch, over the shapes that spaces hold and some they do not."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from edgemeta.files import resource

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler on this machine")
GUARD = np.float32(1234.5)
# channels in and out, height, width, kernel height and width, stride, dilation, groups
SHAPES = [
    (1, 6, 12, 12, 3, 3, 1, 1, 1),
    (5, 7, 9, 6, 3, 3, 1, 1, 1),
    (6, 8, 7, 7, 5, 5, 2, 1, 1),
    (9, 4, 5, 5, 1, 1, 1, 1, 1),
    (8, 13, 1, 1, 1, 1, 1, 1, 1),
    (6, 5, 4, 4, 1, 1, 2, 1, 1),
    (6, 6, 8, 8, 3, 3, 1, 1, 6),
    (6, 6, 8, 7, 3, 3, 2, 1, 6),
    (4, 4, 9, 9, 5, 5, 2, 1, 4),
    (3, 3, 2, 2, 5, 5, 1, 1, 3),
    (4, 4, 9, 9, 3, 3, 1, 2, 4),
    (4, 4, 6, 6, 7, 7, 1, 1, 4),
    (4, 6, 10, 10, 3, 3, 2, 2, 2),
    (6, 12, 5, 5, 1, 1, 1, 1, 2),
    (3, 8, 1, 32, 1, 9, 2, 1, 1),
    (5, 5, 1, 32, 1, 15, 1, 1, 5),
]


@pytest.fixture(scope="module")
def em_conv(tmp_path_factory):
    library = tmp_path_factory.mktemp("conv") / "em_conv.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared"]
    checks = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, *checks, resource("export") / "c" / "em_conv.c", "-o", library], check=True)
    return ctypes.CDLL(str(library)).em_conv


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_convolves_as_torch_does_and_stays_in_its_memory(em_conv, shape):
    channels, out, height, width, high, wide, stride, dilation, groups = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels, height, width), dtype=np.float32)
    weight = rng.standard_normal((out, channels // groups, high, wide), dtype=np.float32)
    bias = rng.standard_normal(out, dtype=np.float32)
    flat = height == 1 < width
    down, over = (1, 1) if flat else (stride, dilation)
    pads = (0 if flat else over * (high // 2), dilation * (wide // 2))
    steps, spread = (down, stride), (over, dilation)
    want = conv2d(*map(torch.from_numpy, (x, weight, bias)), steps, pads, spread, groups).numpy()
    depthwise = groups == channels == out
    floats = (height + 2 * pads[0]) * (width + 2 * pads[1]) if depthwise else 2 * channels // groups * high * wide
    got, scratch = (np.full(size + 1, GUARD) for size in (want.size, floats))
    inside = (channels // groups, height, width, *want.shape[1:], high, wide)
    fields = [*inside, *steps, *spread, *pads, groups]
    em_conv(
        *(array.ctypes.data_as(ctypes.c_void_p) for array in (x, weight, bias, got, scratch)),
        (ctypes.c_int * len(fields))(*fields),
    )
    np.testing.assert_allclose(got[:-1].reshape(want.shape), want, atol=1e-4)
    assert got[-1] == scratch[-1] == GUARD
