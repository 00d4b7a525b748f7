"""Where the C of a bundle may go: nothing that is not its own is ever replaced."""

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.lowering import to_c
from edgemeta.stages import microcontroller


def test_what_is_beside_the_program_is_left_alone(tmp_path):
    for name in (*to_c.FILES, "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(EdgemetaError, match=r"holds notes\.txt, not of the C program; move it or name another folder"):
        microcontroller.require(tmp_path)


def test_an_older_program_and_what_was_built_of_it_are_replaced(tmp_path):
    pytest.importorskip("emx_onnx_cgen", reason="extra `c` is not installed")
    for name in (*to_c.FILES, microcontroller.FIGURES, "build-m4"):
        (tmp_path / name).touch()
    microcontroller.require(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "firmware").touch()
    with pytest.raises(EdgemetaError, match="is a file; name another folder with --c"):
        microcontroller.require(tmp_path / "firmware")
