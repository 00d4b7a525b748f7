"""Numbers that describe an architecture to `fewshot`: what random devices would take, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.sparse import csr_matrix

from edgemeta.types import Op

from . import simulate
from .parts import Part, Parts
from .simulate import KINDS, Devices

LANDMARKS = 64  # devices whose log latencies stand for all simulated ones, to 0.5 % of the span of new networks
RAW = 0.5  # weight of what is there beside what runs: where all of it runs the two say the same

Place = tuple[tuple[tuple[int, ...], ...], int, str]  # wiring of the part, place in it, operator key


class Basis(NamedTuple):
    """Features of architectures, each centred on the typical ones of a space.

    The first are log latencies of landmark devices; then come counts per kind of operator, then one per choice.
    """

    landmarks: Devices
    scale: np.ndarray  # (4, landmarks)
    places: dict[Place, int]  # a choice -> its column
    mean: np.ndarray  # (features,)
    spread: np.ndarray  # (features,) what each is divided by; 1 for log latencies

    @property
    def blocks(self) -> tuple[slice, slice, slice]:
        """Columns of the log latencies, of the kinds, of the choices."""
        first, second = len(self.landmarks.roof), len(self.landmarks.roof) + 2 * len(_COUNTED)
        return slice(0, first), slice(first, second), slice(second, len(self.mean))

    def __call__(self, parts: Parts) -> np.ndarray:
        """(architectures, features)"""
        logs = simulate.log_times(parts, self.landmarks, self.scale)
        return (np.hstack([logs, self.counts(parts)]) - self.mean) / self.spread

    def knows(self, parts: Parts) -> bool:
        """Whether most choices of these architectures are those of the space it was built for."""
        known = [place in self.places for part in parts.parts for place in _places_of(parts.ops, part)]
        return 2 * sum(known) > len(known)

    def counts(self, parts: Parts) -> np.ndarray:
        """(architectures, kinds + choices), as they are: they add up over an architecture's parts."""
        running = _running(parts)
        return np.hstack([_kinds(parts, running), _choices(parts, running, self.places)])


_COUNTED = tuple(kind for kind in KINDS if kind != "act")


def build(typical: Parts, devices: Devices) -> tuple[Basis, np.ndarray]:
    """The basis of a space, and each device as weights (landmarks, devices) of the landmarks' log latencies.

    Landmarks are chosen by pivoted QR of the log latencies of typical networks (an interpolative decomposition:
    Cheng 2005, SIAM J. Sci. Comput. 26).
    """
    scale = simulate.scales(typical, devices)
    logs = simulate.log_times(typical, devices, scale)
    logs = logs - logs.mean(0)
    _, _, order = qr(logs, mode="economic", pivoting=True)
    chosen = order[: min(LANDMARKS, len(order), len(logs) - 1)]
    weights = np.linalg.lstsq(logs[:, chosen], logs, rcond=1e-8)[0]
    landmarks = Devices(*(field[..., chosen] for field in devices))
    places = _places(typical)
    basis = Basis(landmarks, scale[:, chosen], places, np.zeros(1), np.ones(1))
    raw = np.hstack([simulate.log_times(typical, landmarks, basis.scale), basis.counts(typical)])
    basis = basis._replace(mean=raw.mean(0))
    spread = np.ones(raw.shape[1])
    for block in basis.blocks[1:]:  # so that a typical architecture is at distance 1 from the mean of each block
        spread[block] = np.sqrt(((raw[:, block] - basis.mean[block]) ** 2).sum(1).mean()) or 1.0
    return basis._replace(spread=spread), weights


def _places(parts: Parts) -> dict[Place, int]:
    found: dict[Place, int] = {}
    for part in parts.parts:
        for place in _places_of(parts.ops, part):
            found.setdefault(place, len(found))
    return found


def _places_of(ops: Sequence[Op], part: Part) -> list[Place]:
    return [(part.inputs, place, ops[number].key) for place, number in enumerate(part.ops)]


def _running(parts: Parts) -> list[np.ndarray]:
    """Of each part, (places,) 1 where a place runs and its value is used."""
    found: list[np.ndarray] = [np.empty(0)] * len(parts.parts)
    for inputs, rows in parts.wirings().items():
        live = simulate.runs(parts.ops, [parts.parts[row] for row in rows], inputs)[0]
        for row, runs in zip(rows, live, strict=True):
            found[row] = runs
    return found


def _choices(parts: Parts, running: Sequence[np.ndarray], places: dict[Place, int]) -> np.ndarray:
    """(architectures, 2 x places) how often each choice runs, and (at a lower weight) how often it is there."""
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, (part, live) in enumerate(zip(parts.parts, running, strict=True)):
        for place, runs in zip(_places_of(parts.ops, part), live, strict=True):
            column = places.get(place)
            if column is not None:
                rows += [row, row]
                columns += [column, column + len(places)]
                values += [float(runs), RAW]
    table = csr_matrix((values, (rows, columns)), shape=(len(parts.parts), 2 * len(places)))
    return (parts.counts @ table).toarray()


def _kinds(parts: Parts, running: Sequence[np.ndarray]) -> np.ndarray:
    """(architectures, 2 x kinds) how many operators of each kind run, and how many are there."""
    table = np.zeros((len(parts.parts), 2 * len(_COUNTED)))
    for row, (part, live) in enumerate(zip(parts.parts, running, strict=True)):
        for number, runs in zip(part.ops, live, strict=True):
            at = _COUNTED.index(simulate.kind(parts.ops[number]))
            table[row, at] += runs
            table[row, at + len(_COUNTED)] += 1
    return parts.counts @ table
