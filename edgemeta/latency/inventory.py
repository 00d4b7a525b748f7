"""`devices.toml`: the devices of a farm, one table each, read with care (docs/farm.md shows one)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemeta.errors import BadConfig, nearest

from .remote import Target

DEFAULTS = "defaults"  # the table whose keys hold where a device's own has none
MAX_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # part of a file's name
_NUMBERED = re.compile(r"-\d+$")
_Word = Annotated[str, Field(min_length=1, max_length=255)]
_Count = Annotated[int, Field(ge=1, le=10**6)]


class Device(BaseModel):
    """A device of an inventory; what is None there is what the command says, or the user's own ssh config."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    host: _Word = ""  # as `ssh` knows it; left out: the table's name
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: _Word | None = None
    python: _Word = "python3"
    like: _Word = ""  # devices that are like the same are identical and share work; left out: the name without "-2"
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    precision: Literal["fp32", "int8"] | None = None
    nets: _Count | None = None
    timings: _Count | None = None
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    tries: Annotated[int, Field(ge=1, le=100)] = 3  # in a row that may fail before the device is set aside
    pause_s: Annotated[float, Field(ge=0, le=3600)] = 2.0  # before the second try; twice as long before each other
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0  # a device that tells nothing for so long has gone away

    @property
    def target(self) -> Target:
        return Target(self.host or self.name, self.port, self.user, self.python, self.timeout_s, self.name)

    @property
    def kind(self) -> str:
        return self.like or _NUMBERED.sub("", self.name)


class Inventory(BaseModel):
    """All devices of a file, in its order."""

    model_config = ConfigDict(frozen=True)

    path: Path
    devices: tuple[Device, ...]

    def only(self, names: Sequence[str]) -> tuple[Device, ...]:
        """The devices of these names or kinds, each once; all of them without names."""
        wanted = {device.name: device for name in names for device in self.alike(name)}
        return tuple(device for device in self.devices if device.name in wanted) if names else self.devices

    def alike(self, name: str) -> tuple[Device, ...]:
        """The identical devices of a kind, or the one device of a name; refused where their settings differ."""
        found = tuple(device for device in self.devices if device.kind == name)
        found = found or tuple(device for device in self.devices if device.name == name)
        if not found:
            known = {part for device in self.devices for part in (device.name, device.kind)}
            raise BadConfig(f"{self.path} has no device {name!r}; {nearest(name, known)}")
        first = found[0]
        for other in found[1:]:
            for key in ("threads", "precision"):
                own, its = getattr(first, key), getattr(other, key)
                if own != its:
                    raise BadConfig(
                        f"{self.path}: [{first.name}] and [{other.name}] are both {name}, but {key} is {own} "
                        f"and {its}; make them equal, or give one another `like`"
                    )
        return found


def read(path: Path | str) -> Inventory:
    """The inventory in a TOML file; a mistake is told in one line with file, table and the nearest key."""
    path = Path(path)
    tables = _tables(path)
    shared = tables.pop(DEFAULTS, {})
    _known_keys(path, DEFAULTS, shared, set(Device.model_fields) - {"name", "host", "like"})
    if not tables:
        raise BadConfig(f"{path} names no device: give each a table, such as [pi4-1] with host = 'pi4-1.local'")
    return Inventory(path=path, devices=tuple(_device(path, name, shared, own) for name, own in tables.items()))


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadConfig(f"{path} has over {MAX_BYTES // 2**10} KiB, too large for an inventory; name another file")
        content = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}; name an inventory with --devices") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadConfig(f"{path} is not valid TOML: {error}; correct it") from error
    for name, own in content.items():
        if not isinstance(own, dict):
            raise BadConfig(f"{path}: {name} = {own!r} stands in no table; put it below [{DEFAULTS}] or a device's own")
        if not _NAME.fullmatch(name):
            raise BadConfig(f"{path}: [{name}]: a device's name is of letters, digits, '-', '_' and '.'; rename it")
    return content


def _device(path: Path, name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Device:
    _known_keys(path, name, own, set(Device.model_fields) - {"name"})
    try:
        return Device.model_validate({**shared, **own, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        table = name if key in own else DEFAULTS
        told = " ".join(str(first["msg"]).lower().split())
        raise BadConfig(f"{path}: [{table}] {key} = {first['input']!r}: {told}; correct it") from None


def _known_keys(path: Path, table: str, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise BadConfig(f"{path}: [{table}] has an unknown key {key!r}; {nearest(key, known)}")
