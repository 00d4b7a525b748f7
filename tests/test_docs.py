"""The page about searchers names all that there is."""

from pathlib import Path

import pytest

from edgemeta.search import KNOWN
from edgemeta.space.presets import SPACES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "searchers.md"


@pytest.mark.parametrize("name", [*KNOWN, *SPACES])
def test_every_searcher_and_space_is_on_the_page(name):
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in row.split("|")[1] for row in rows)
