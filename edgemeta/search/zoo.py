"""The zoo: networks that were meta-trained ahead, in one file, so that a first bundle needs no training.

The file is safetensors with an index in its metadata: kernels as float16, everything else as float32.
`tools/make_zoo.py` makes the one that ships.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import edgemeta
from edgemeta.contracts import Learner, Params
from edgemeta.errors import BadConfig, BadData, BadProfile, first_mistake
from edgemeta.files import write_bytes
from edgemeta.learners import LEARNERS
from edgemeta.nets.build import build
from edgemeta.search import shipped
from edgemeta.space.named import named
from edgemeta.space.space import Space
from edgemeta.types import Arch

SHIPPED = Path(edgemeta.__file__).parent / "zoo" / "edge-1x28x28.safetensors"
FORMAT, VERSION = "edgemeta-zoo", 1
MAX_BYTES = 5_000_000  # of a zoo: it comes with every wheel, and a larger file is refused before it is read
MAX_MEMBERS = 256
MAX_VALUES = 2**22  # of one input example
AGAIN = shipped.again("zoo")
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Row(_Strict):
    """A row of `jobs.run_test`."""

    learner: str
    data: str
    split: str
    way: _Count
    shot: _Count
    accuracy: _Share
    ci95: _Share
    episodes: _Count


class _Member(_Strict):
    picks: tuple[_Count, ...]
    episodes: _Count
    tests: Annotated[tuple[_Row, ...], Field(min_length=1)]


class _Index(_Strict):
    format: str
    version: int
    space: str
    learner: str
    ink_high: bool
    facts: dict[str, JsonValue]
    members: Annotated[tuple[_Member, ...], Field(min_length=1, max_length=MAX_MEMBERS)]


@dataclass(frozen=True)
class Member:
    """A trained network. `tests` are rows of `jobs.run_test`: those of split "val" to choose by, of "test" to tell."""

    arch: Arch
    episodes: int  # of meta-training
    tests: tuple[Mapping[str, Any], ...]

    def accuracy(self, split: str, shot: int) -> float:
        """Mean over the domains, 0..1, at the number of shots nearest to `shot`, the smaller of two as near."""
        rows = [row for row in self.tests if row["split"] == split] or list(self.tests)
        near = min((row["shot"] for row in rows), key=lambda known: (abs(known - shot), known))
        found = [row["accuracy"] for row in rows if row["shot"] == near]
        return sum(found) / len(found)


@dataclass(frozen=True)
class Zoo:
    """What a zoo file holds; the weights stay in it until they are asked for."""

    path: Path
    digest: str  # SHA-256 of the file
    space: Space
    learner: str
    ink_high: bool  # strokes were bright on a dark ground
    members: tuple[Member, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)  # domains, training, commit, date, versions

    def net_learner(self, member: Member) -> Learner:
        """The learner of a member's network."""
        return LEARNERS[self.learner](build(self.space.ops(member.arch)))

    def weights(self, member: Member) -> Params:
        """Float32 parameters of a member; refused where they are not those of its network."""
        place = self.members.index(member)
        wanted = _shapes(self.net_learner(member))
        with _opened(self.path) as file:
            prefix = f"{place}/"
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118  (it is no dict)
            found = {key.removeprefix(prefix): tuple(file.get_slice(key).get_shape()) for key in names}
            if found != wanted:
                wrong = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
                raise BadData(f"{self.path}: {wrong} of network {place} is not that of {member.arch}; {AGAIN}")
            slow = {name: file.get_tensor(prefix + name).float() for name in wanted}
        if not all(value.isfinite().all() for value in slow.values()):
            raise BadData(f"{self.path}: weights of {member.arch} are no numbers; {AGAIN}")
        return slow


def read(path: Path | str | None = None) -> Zoo:
    """The zoo in a file, or the one that ships. Sizes are checked before anything is read or allocated."""
    path = Path(path or SHIPPED)
    try:
        index = shipped.read_index(path, "zoo", _Index, most=MAX_BYTES)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadData(f"cannot read the zoo {path}: {error.strerror or error}; {AGAIN}") from error
    except SafetensorError as error:
        raise _not_whole(path, error) from error
    except ValidationError as error:
        raise BadData(f"{path} is no zoo: {first_mistake(error, 'the index')}; {AGAIN}") from None
    if (index.format, index.version) != (FORMAT, VERSION) or index.learner not in LEARNERS:
        raise BadData(f"{path} is {index.format} {index.version} of {index.learner}, not {FORMAT} {VERSION}; {AGAIN}")
    try:
        space = named(index.space)
        members = tuple(_member(space, row) for row in index.members)
    except (BadProfile, BadConfig) as error:
        raise BadData(f"{path}: {error}; {AGAIN}") from error
    if len({space.ops(member.arch) for member in members}) < len(members):
        raise BadData(f"{path} holds a network twice; {AGAIN}")
    if math.prod(space.in_shape) > MAX_VALUES:
        raise BadData(f"{path}: inputs of {space} have more than {MAX_VALUES} values; {AGAIN}")
    return Zoo(path, digest, space, index.learner, index.ink_high, members, index.facts)


def write(
    path: Path | str,
    trained: Sequence[tuple[Member, Params]],
    *,
    learner: str,
    ink_high: bool,
    facts: Mapping[str, Any],
) -> Path:
    """One file of all networks, which are of one space; refused where it is larger than may ship."""
    members = [member for member, _ in trained]
    spaces = {member.arch.space for member in members}
    if len(spaces) != 1 or len(members) > MAX_MEMBERS:
        raise BadData(f"{len(members)} networks of {len(spaces)} spaces; give 1 to {MAX_MEMBERS} of one")
    index = {
        "format": FORMAT,
        "version": VERSION,
        "space": spaces.pop(),
        "learner": learner,
        "ink_high": ink_high,
        "facts": dict(facts),
        "members": [
            {"picks": m.arch.picks, "episodes": m.episodes, "tests": [dict(r) for r in m.tests]} for m in members
        ],
    }
    tensors = {f"{i}/{name}": _stored(value) for i, (_, slow) in enumerate(trained) for name, value in slow.items()}
    data = save(tensors, metadata={"zoo": json.dumps(index, allow_nan=False)})
    if len(data) > MAX_BYTES:
        raise BadData(
            f"{len(members)} networks take {len(data)} bytes, a zoo at most {MAX_BYTES}; give fewer or smaller"
        )
    return write_bytes(path, data)


def rounded(slow: Params) -> Params:
    """The parameters as they come back from a zoo: what is tested must be what ships."""
    return {name: _stored(value).float() for name, value in slow.items()}


def _stored(value: torch.Tensor) -> torch.Tensor:
    """Kernels at half the size; vectors are few, and variances may be too small or large for float16."""
    kept = value.detach().cpu().contiguous().clone()
    return kept.half() if kept.dim() > 1 else kept.float()


def _member(space: Space, row: _Member) -> Member:
    arch = Arch(space.name, row.picks)
    space.ops(arch)  # refuses picks that are not of the space
    return Member(arch, row.episodes, tuple(test.model_dump() for test in row.tests))


def _shapes(learner: Learner) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in learner.init(rng=torch.Generator().manual_seed(0)).items()}


def _opened(path: Path) -> Any:
    """The file behind a context manager; its header is held against its size before any tensor is touched."""
    try:
        return safe_open(str(path), framework="pt")
    except (OSError, SafetensorError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is no whole safetensors file ({error}); {AGAIN}")
