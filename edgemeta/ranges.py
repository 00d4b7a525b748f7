"""What a setting may be: kinds and ranges, told in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgemeta.errors import BadConfig

SEEDS = 2**63  # torch, numpy and random all take what is below
MAY_BE_OFF = ("patience", "front", "shards", "unknown")  # settings that 0 turns off
MOST_AT_ONCE = 256  # threads or processes
PORTS = 65536


def told(error: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """What is wrong with a setting, without what its parts are called."""
    name = error["loc"][0]
    kinds = {"int": "should be a whole number", "float": "should be a number", "bool": "should be true or false"}
    why = kinds.get(error["type"].partition("_")[0], error["msg"].lower())
    if name == "in_shape":
        why = "should be channels,height,width, such as 1,28,28"
    value = settings.get(name, error["input"])
    return f"setting {name} = {','.join(map(str, value)) if isinstance(value, tuple) else value!r}: {why}"


def in_range(config: Any) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        values = value if isinstance(value, tuple) else (value,)
        for number in values:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            seed = f.name.endswith("seed")
            if seed and not 0 <= number < SEEDS:
                raise BadConfig(f"setting {f.name} = {value!r}: should be from 0 to {SEEDS - 1}; choose another")
            if f.name.endswith("_episodes") and number < 2:
                raise BadConfig(f"setting {f.name} = {value!r}: should be 2 or more; an interval needs them")
            if f.name in MAY_BE_OFF and not number >= 0:
                raise BadConfig(f"setting {f.name} = {value!r}: should be 0 or more")
            if not seed and f.name not in MAY_BE_OFF and not number > 0:
                raise BadConfig(f"setting {f.name} = {value!r}: should be greater than 0")
            if f.name in ("threads", "workers") and number > MOST_AT_ONCE:
                raise BadConfig(f"setting {f.name} = {value!r}: should be at most {MOST_AT_ONCE}")
            if f.name == "unknown" and number >= 1:
                raise BadConfig(f"setting unknown = {value!r}: a share of examples; give 0 or more, and below 1")
            if f.name == "port" and number >= PORTS:
                raise BadConfig(f"setting port = {value!r}: should be below {PORTS}; leave it out for 8000")
            if f.name == "way" and number < 2:
                raise BadConfig(f"setting way = {value!r}: few-shot learning tells classes apart; give at least 2")
