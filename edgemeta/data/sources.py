"""Every data set a user can name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemeta.data.arrays import load_npz
from edgemeta.data.dataset import Dataset
from edgemeta.data.digits import load_digits
from edgemeta.data.folder import load_folder
from edgemeta.data.glyphs import load_glyphs
from edgemeta.data.omniglot import load_omniglot
from edgemeta.errors import BadConfig, BadData, nearest
from edgemeta.types import Shape

SOURCES: Mapping[str, Callable[..., Dataset]] = {
    "glyphs": load_glyphs,
    "digits": load_digits,
    "omniglot": load_omniglot,
    "folder": load_folder,
    "npz": load_npz,
}


def load(
    name: str, *, in_shape: Shape = (1, 28, 28), root: Path | None = None, cache: Path, seed: int = 0, **settings: Any
) -> Dataset:
    """A data set by name; `settings` are those of its loader (`folder` has `ink`)."""
    if name not in SOURCES:
        raise BadData(f"no data set {name!r}; {nearest(name, SOURCES)}")
    known = set(inspect.signature(SOURCES[name]).parameters) - {"in_shape", "root", "cache", "seed"}
    for setting in settings:
        if setting not in known:
            advice = nearest(setting, known) if known else "it has none"
            raise BadConfig(f"data set {name!r} has no setting {setting!r}; {advice}")
    return SOURCES[name](in_shape=tuple(in_shape), root=root, cache=cache, seed=seed, **settings)
