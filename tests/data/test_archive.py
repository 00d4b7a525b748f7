from __future__ import annotations

import pickle

import numpy as np
import pytest

from edgemeta.data.archive import DAMAGED, read_arrays


def test_arrays_come_in_the_order_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(2), y=np.ones(3))
    y, x = read_arrays(tmp_path / "a.npz", "y", "x")
    assert y.tolist() == [1, 1, 1] and x.tolist() == [0, 0]


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"x": 1}), b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_anything_else_raises_what_callers_expect(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DAMAGED):
        read_arrays(path, "x")
