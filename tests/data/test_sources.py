from __future__ import annotations

import inspect

import pytest

from edgemeta.data.sources import SOURCES, load
from edgemeta.errors import BadConfig, BadData


@pytest.mark.parametrize("loader", SOURCES.values(), ids=SOURCES)
def test_loaders_share_their_keywords(loader):
    parameters = inspect.signature(loader).parameters
    assert list(parameters)[:4] == ["in_shape", "root", "cache", "seed"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())


def test_mistyped_name_gets_the_nearest(tmp_path):
    with pytest.raises(BadData, match="no data set 'glyph'; did you mean 'glyphs'"):
        load("glyph", cache=tmp_path)


@pytest.mark.parametrize(("name", "says"), [("folder", "did you mean 'ink'"), ("digits", "it has none")])
def test_unknown_setting_is_refused(tmp_path, name, says):
    with pytest.raises(BadConfig, match=says):
        load(name, cache=tmp_path, inks="bright")


@pytest.mark.parametrize("name", ["folder", "npz", "omniglot"])
@pytest.mark.parametrize("root", [None, "absent"])
def test_missing_root_is_one_line_with_a_next_move(tmp_path, name, root):
    with pytest.raises(BadData) as refusal:
        load(name, root=root and tmp_path / root, cache=tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert any(move in str(refusal.value) for move in ("set root", "name a folder", "write it with"))
