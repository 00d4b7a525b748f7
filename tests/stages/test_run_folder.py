import json

import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.stages.run_folder import HOLDS, RunFolder


@pytest.mark.parametrize("text", ["", '{"a": 1', '"x"', "[]", "null", "{}", "[" * 100_000, "\x00"])
@pytest.mark.parametrize("name", ["search", "train"])
def test_a_damaged_note_is_named_with_the_next_move(tmp_path, name, text):
    (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(EdgemetaError, match=rf"{name}\.json.*delete it and run the command that wrote it again"):
        RunFolder(tmp_path).read(name)


def test_a_whole_note_is_read_back(tmp_path):
    folder, note = RunFolder(tmp_path), dict.fromkeys(HOLDS["train"], 1)
    folder.note("train", note)
    assert folder.read("train") == note and folder.read("search") is None


def test_a_run_that_is_a_file_is_told(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(EdgemetaError, match="is a file; name a folder with --run"):
        RunFolder(tmp_path / "run").read("search")


def test_a_stage_leaves_its_seconds(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.stage("one"):
        pass
    with folder.stage("two"):
        pass
    assert list(json.loads((tmp_path / "stages.json").read_text())) == ["one", "two"]


def test_what_a_killed_command_left_is_swept(tmp_path):
    folder = RunFolder(tmp_path / "run")
    left = [folder.root / ".bundle.x1.tmp", folder.weights / ".a.safetensors.x2.tmp"]
    left[0].mkdir(parents=True)
    left[1].parent.mkdir()
    left[1].write_bytes(b"half")
    with folder.locked():
        assert not any(path.exists() for path in left)
