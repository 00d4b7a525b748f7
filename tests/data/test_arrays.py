from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from edgemeta.data import arrays
from edgemeta.data.sources import load
from edgemeta.errors import BadData


def _load(path, in_shape=(1, 6, 5)):
    return load("npz", in_shape=in_shape, root=path, cache=path.parent)


@pytest.fixture
def write(tmp_path):
    def save(**named):
        np.savez(tmp_path / "data.npz", **named)
        return tmp_path / "data.npz"

    return save


X, Y = np.linspace(-3, 3, 8 * 6 * 5).reshape(8, 6, 5), np.repeat([4, 9], 4)


@pytest.mark.parametrize(
    ("kind", "becomes", "scale"), [("f4", "f4", 1), ("f8", "f4", 1), ("f2", "f4", 1), ("u1", "u1", 1 / 255)]
)
def test_values_stay_as_they_are(write, kind, becomes, scale):
    x = (X * 10 + 40).astype(kind)
    data = _load(write(x=x, y=Y))
    assert data.images.dtype == np.dtype(becomes) and data.scale == scale
    np.testing.assert_array_equal(data.images[:, 0], x.astype(becomes))
    assert data.class_names == ("4", "9") and data.labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("y", [np.repeat(["left", "right"], 4), np.repeat([b"left", b"right"], 4)])
def test_names_are_labels_too(write, y):
    assert _load(write(x=X, y=y)).class_names == ("left", "right")


def test_channels_are_read(write):
    data = _load(write(x=X.reshape(4, 2, 6, 5), y=Y[2:6]), in_shape=(2, 6, 5))
    assert data.images.shape == (4, 2, 6, 5)


def _nan():
    x = X.copy()
    x[5, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"x": X, "y": Y[:-1]}, r"y has shape \(7,\), expected \(8,\)"),
        ({"x": X}, "has no array 'y' but x"),
        ({"x": X[0], "y": Y}, r"x has shape \(6, 5\)"),
        ({"x": X[:0], "y": Y[:0]}, r"x has shape \(0, 6, 5\)"),
        ({"x": X.astype("i2"), "y": Y}, "x is int16; convert it to float32"),
        ({"x": X.astype("c8"), "y": Y}, "x is complex64"),
        ({"x": X, "y": Y / 2}, "y is float64; labels are whole numbers or names"),
        ({"x": X, "y": Y * 0}, "y names 1 class"),
        ({"x": _nan(), "y": Y}, r"1 examples hold NaN or infinity, first x\[5\]"),
        ({"x": X * 1e300, "y": Y}, "hold NaN or infinity"),
        ({"x": X[:, :4], "y": Y}, "has examples of 1x4x5, not 1x6x5; set in_shape to 1x4x5"),
        ({"x": X, "y": np.full(8, 0x110000, np.uint32).view("U1")}, "characters that do not exist"),
        ({"x": X, "y": np.full(8, 0xD800, np.uint32).view("U1")}, "characters that do not exist"),
        ({"x": X, "y": np.array([b"\xff"] * 8)}, "bytes beyond ASCII"),
        ({"x": np.array([{}] * 8), "y": Y}, "holds Python objects, which are never unpickled"),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(write, named, says):
    with pytest.raises(BadData, match=says) as refusal:
        _load(write(**named))
    assert "\n" not in str(refusal.value)


def _announce(path, shape):
    """An archive whose x announces `shape` and holds 64 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, own in (("x", shape), ("y", shape[:1])):
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array_header_1_0(member, {"shape": own, "fortran_order": False, "descr": "|u1"})
                member.write(bytes(64))


@pytest.mark.parametrize(
    ("shape", "says"),
    [((10**7, 10**3, 10**3), "GiB, at most 16 are read"), ((100, 6, 5), "announces 3000 bytes and has 64")],
)
def test_size_is_checked_before_anything_is_allocated(tmp_path, monkeypatch, shape, says):
    _announce(tmp_path / "huge.npz", shape)
    monkeypatch.setattr(arrays, "read_arrays", None)
    with pytest.raises(BadData, match=says):
        _load(tmp_path / "huge.npz")


@pytest.mark.parametrize(("offset", "byte"), [(8, 1), (8, 32), (10, 99)])
def test_encrypted_or_oddly_packed_archive_is_refused(write, offset, byte):
    path = write(x=X, y=Y)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + offset] = byte  # flags, or the method of compression, of the first array
    path.write_bytes(whole)
    with pytest.raises(BadData, match="cannot read .*data.npz: "):
        _load(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10**6))
def test_damage_anywhere_is_one_line_or_harmless(write, cut, flip):
    path = write(x=X.astype(np.float32), y=Y)
    whole = path.read_bytes()
    for damaged in (
        whole[: int(cut * len(whole))],
        whole[: flip % len(whole)] + b"\x7f" + whole[flip % len(whole) + 1 :],
    ):
        path.write_bytes(damaged)
        try:
            assert _load(path).images.shape == (8, 1, 6, 5)
        except BadData as refusal:
            assert "\n" not in str(refusal)
