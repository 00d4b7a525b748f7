"""Device profiles on disk: JSON in, a validated `Profile` out, every complaint one line."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemeta.errors import BadProfile, nearest
from edgemeta.files import resource, write_json
from edgemeta.types import Arch, NetTiming, Op, Profile, Timing

from . import checks, machine

MAX_BYTES = 64 * 2**20  # far above any real profile; a wrong file is refused before it is parsed
MAX_MEDIAN_MS = 1e4  # an operator of a small network that takes 10 s is a time in another unit
AGAIN = "run `edgemeta profile` to measure this machine"

_N = r"(\d{1,7})"
_KEY = re.compile(rf"([a-z]+)_{_N}x{_N}x{_N}-{_N}x{_N}x{_N}_k{_N}s{_N}g{_N}(?:d{_N})?(f?)_([a-z]+)")
_Ms = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Size = Annotated[int, Field(ge=0, lt=10**7)]  # what is computed of nine of them is a float yet
_Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Timing(_Strict):
    median_ms: _Ms
    iqr_ms: _Ms
    n: Annotated[int, Field(ge=1, lt=2**63)]


class _Op(_Strict):
    kind: str
    in_shape: tuple[_Size, _Size, _Size]
    out_shape: tuple[_Size, _Size, _Size]
    kernel: _Size
    stride: _Size
    groups: _Size
    act: str
    inputs: tuple[Annotated[int, Field(ge=-1, lt=10**7)], ...]
    dilation: _Size = 1
    flat: bool = False


class _Net(_Strict):
    space: str
    picks: tuple[_Size, ...]
    timing: _Timing
    ops: tuple[_Op, ...] = ()


class _Profile(_Strict):
    device: _Name
    runtime: _Name
    versions: dict[str, str]
    threads: Annotated[int, Field(ge=1)]
    precision: _Name
    batch: Annotated[int, Field(ge=1, lt=2**31)]
    measured_on: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    cpu: str
    governor: str
    synthetic: bool
    overhead: dict[Annotated[str, Field(pattern=r"_(ms|mj|ratio)$")], _Ms]
    ops: dict[str, _Timing]
    nets: tuple[_Net, ...] = ()
    status: dict[str, str] = {}
    affinity: tuple[_Size, ...] = ()
    drift: tuple[tuple[_Ms, _Ms], ...] = ()
    doubts: tuple[str, ...] = ()
    source: str = ""


def available() -> dict[str, Path]:
    """Name -> file of every profile that ships with the project."""
    return {path.stem: path for path in sorted(resource("profiles").glob("*.json"))}


def measured() -> list[Profile]:
    """The profiles of real devices that ship."""
    return [found for path in available().values() if not (found := load(path)).synthetic]


def load(name_or_path: str | Path) -> Profile:
    """The profile of a shipped device's name, or in a JSON file."""
    path = _find(name_or_path)
    text = _read(path)
    checks.refuse_repeated_keys(text, f"profile {path}")
    profile = _record_to_profile(_validated(text, path))
    _check_units(profile, path)
    _warn_of_other_runtime(profile, path)
    return profile


def save(profile: Profile, path: str | Path) -> Path:
    """Write a profile; `load` returns an equal one."""
    path = Path(path)
    data = _profile_to_json(profile)
    _check_units(_record_to_profile(_validated(json.dumps(data).encode(), path)), path)
    return write_json(path, data)


def _find(name: str | Path) -> Path:
    path, known = Path(name), available()
    if str(name) in known:
        return known[str(name)]
    if path.is_file():
        return path
    if path.suffix == ".json" or len(path.parts) > 1:
        raise BadProfile(f"no profile at {name}; {AGAIN}, or list the shipped ones with `edgemeta devices`")
    raise BadProfile(f"unknown device {str(name)!r}: {nearest(str(name), known)} (`edgemeta devices` lists them)")


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadProfile(f"{path} has {size / 2**20:.0f} MiB, a profile at most {MAX_BYTES // 2**20}; {AGAIN}")
        return path.read_bytes()
    except OSError as error:
        raise BadProfile(f"cannot read profile {path}: {error.strerror}; {AGAIN}") from error


def _validated(text: bytes, path: Path) -> _Profile:
    try:
        return _Profile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadProfile(f"profile {path}: {where}: {_reason(first)}{more}; {AGAIN}") from None


def _reason(error: Mapping[str, Any]) -> str:
    field = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        unit = (
            "; times are in milliseconds, fields `median_ms` and `iqr_ms`"
            if field.startswith(("median", "iqr"))
            else ""
        )
        return f"unknown field{unit}"
    if error["type"] == "missing":
        return "missing"
    value = error.get("input")
    shown = f", got {value!r}" if isinstance(value, int | float | str) and len(repr(value)) < 40 else ""
    return " ".join(str(error["msg"]).split()) + shown


def _check_units(profile: Profile, path: Path) -> None:
    """Times that no small network has are in another unit."""
    if not (profile.ops or profile.overhead or profile.nets):
        raise BadProfile(f"profile {path} holds no timing; {AGAIN}")
    medians = [timing.median_ms for timing in profile.ops.values()]
    slow = [key for key, timing in profile.ops.items() if timing.median_ms > MAX_MEDIAN_MS]
    if slow:
        raise BadProfile(f"profile {path}: {slow[0]} takes over {MAX_MEDIAN_MS:g} ms; are these microseconds? {AGAIN}")
    if profile.nets and medians and (wrong := _wrong_by(profile)):
        raise BadProfile(
            f"profile {path}: operators and whole networks disagree {wrong:.0f}-fold; mixed units? {AGAIN}"
        )
    try:
        if profile.nets:
            checks.check_nets(profile.nets, f"profile {path}")
        if not profile.synthetic:
            _check_work(profile, path)
    except BadProfile as error:
        raise BadProfile(f"{error}; {AGAIN}") from None


def _check_work(profile: Profile, path: Path) -> None:
    """Times beside the work done in them: units that are wrong everywhere contradict nothing else."""
    rows = [(op, timing.median_ms) for key, timing in profile.ops.items() if (op := _op_of(key))]
    table = [([op for op, _ in rows], sum(ms for _, ms in rows))]
    nets = [(net.ops, net.timing.median_ms) for net in profile.nets]
    for works in (table, nets):
        checks.check_unit(works, f"profile {path}", batch=profile.batch)


def _op_of(key: str) -> Op | None:
    """An operator as far as its key tells; None where the key is not of this form."""
    found = _KEY.fullmatch(key)
    if not found:
        return None
    kind, *numbers, dilation, flat, act = found.groups()
    c_in, h_in, w_in, c, h, w, kernel, stride, groups = map(int, numbers)
    seldom: dict[str, Any] = {"dilation": int(dilation or 1), "flat": bool(flat)}
    return Op(kind, (c_in, h_in, w_in), (c, h, w), kernel, stride, max(1, groups), act, **seldom)


def _wrong_by(profile: Profile) -> float:
    """How many times the median network passes the sum of all operators, or falls below the median operator, if 30."""
    net = median(net.timing.median_ms for net in profile.nets)
    rows = [timing.median_ms for timing in profile.ops.values()]
    whole = sum(rows) + sum(value for name, value in profile.overhead.items() if name.endswith("_ms"))
    factor = max(net / max(whole, 1e-12), median(rows) / max(net, 1e-12))
    return factor if factor > 30 else 0.0


def _warn_of_other_runtime(profile: Profile, path: Path) -> None:
    if profile.cpu != machine.cpu() or profile.runtime not in profile.versions:
        return
    try:
        here = version(profile.runtime)
    except PackageNotFoundError:
        return
    if here != (then := profile.versions[profile.runtime]):
        warnings.warn(
            f"profile {path.stem} was measured with {profile.runtime} {then}, here is {here}; {AGAIN}", stacklevel=3
        )


def _record_to_profile(record: _Profile) -> Profile:
    values = {name: getattr(record, name) for name in _Profile.model_fields}
    values["ops"] = {key: Timing(**dict(timing)) for key, timing in record.ops.items()}
    values["nets"] = tuple(
        NetTiming(Arch(net.space, net.picks), Timing(**dict(net.timing)), tuple(Op(**dict(op)) for op in net.ops))
        for net in record.nets
    )
    return Profile(**values)


def _profile_to_json(profile: Profile) -> dict[str, Any]:
    data = {name: getattr(profile, name) for name in _Profile.model_fields}
    data["versions"], data["overhead"], data["status"] = (
        dict(data[name]) for name in ("versions", "overhead", "status")
    )
    data["ops"] = {key: timing._asdict() for key, timing in profile.ops.items()}
    data["nets"] = [
        {
            "space": net.arch.space,
            "picks": list(net.arch.picks),
            "timing": net.timing._asdict(),
            "ops": [_op_to_json(op) for op in net.ops],
        }
        for net in profile.nets
    ]
    return data


def _op_to_json(op: Op) -> dict[str, Any]:
    """Without what few operators have, where this one has none of it."""
    given = {name: getattr(op, name) for name in _Op.model_fields}
    return {name: value for name, value in given.items() if value != _Op.model_fields[name].default}
