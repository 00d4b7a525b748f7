"""What a device has learned, as a value: a few functions that take one and return the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from edgemeta_files import MAX_FILE_BYTES, DeviceError
from edgemeta_graphs import Graphs, Many

KEEP = ("examples", "sums")
MOST_STATE_BYTES = MAX_FILE_BYTES - 2**20  # of examples: the rest of a state file is small
MOST_AT_ONCE = 250  # examples that are adapted to by a learner on images, or of one step for each example
LEFT_OUT = 40  # examples that are left out one by one to choose what is unknown
NEWEST = 20  # scores that are kept of each class where no examples are
BATCH = 256  # examples that are summed up at once


class Learned(NamedTuple):
    """Never changed, so a prediction sees one of these, whatever is learned meanwhile."""

    names: tuple[str, ...]  # of the classes, in the order of their first example
    counts: np.ndarray  # (way,) int64 examples of each class
    labels: np.ndarray  # (n,) int64 positions in `names`: of the examples, or of the scores where none are kept
    examples: np.ndarray | None  # (n, ...) as in `Graphs`; None: summed up
    scores: np.ndarray  # (n,) float32 where examples are summed up, else empty: see `left_out`
    fast: dict[str, np.ndarray]


def nothing(graphs: Graphs, keep: str) -> Learned:
    none = np.zeros(0, np.int64)
    examples = np.zeros((0, *graphs.shape), np.uint8 if graphs.on_images else np.float32)
    return Learned((), none, none, None if keep == "sums" else examples, np.zeros(0, np.float32), {})


def more(graphs: Graphs, learned: Learned, examples: Many, names: Sequence[str]) -> Learned:
    """With more examples, each with the name of its class; new names become new classes."""
    every = tuple(dict.fromkeys([*learned.names, *names]))
    place = {name: i for i, name in enumerate(every)}
    labels = np.array([place[name] for name in names], np.int64)
    fresh = np.stack(list(_alike(graphs, examples)))
    if learned.examples is None:
        return _summed(graphs, learned, every, fresh, labels)
    known = _alike(graphs, [learned.examples, fresh] if len(learned.examples) else [fresh])
    return _adapted(graphs, every, np.concatenate([learned.labels, labels]), np.concatenate(known))


def without(graphs: Graphs, learned: Learned, name: str) -> Learned:
    """As if a class had never been enrolled."""
    at = learned.names.index(name)
    names, stays = learned.names[:at] + learned.names[at + 1 :], learned.labels != at
    labels = learned.labels[stays] - (learned.labels[stays] > at)
    if learned.examples is not None:
        return _adapted(graphs, names, labels, learned.examples[stays])
    fast = {tensor: np.delete(value, at, 0) for tensor, value in learned.fast.items()}
    return Learned(names, np.delete(learned.counts, at), labels, None, learned.scores[stays], fast)


def left_out(graphs: Graphs, learned: Learned) -> np.ndarray:
    """(n,) the largest logit of an example after learning from all others, of examples whose class has others."""
    if learned.examples is None:
        return learned.scores
    some = _at_once(graphs, learned.labels)
    labels, examples = learned.labels[some], learned.examples[some]
    x, onehot = graphs.input(examples), _onehot(labels, len(learned.names))
    tops = []
    for i in _tried(labels, np.bincount(labels)):
        onehot[i] = 0.0  # padding
        tops.append(graphs.logits(examples[i : i + 1], graphs.adapt(x, onehot), len(learned.names)).max())
        onehot[i, labels[i]] = 1.0
    return np.array(tops, np.float32)


def balanced(labels: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` labels, but one of each class: as many of each as can be, evenly spaced."""
    if len(labels) <= most:
        return np.arange(len(labels))
    sizes, each = np.bincount(labels), 1
    while np.minimum(sizes, each + 1).sum() <= most:
        each += 1
    picked = []
    for label in np.flatnonzero(sizes):
        n = min(int(sizes[label]), each)
        picked.append(np.flatnonzero(labels == label)[_spaced(int(sizes[label]), n)])
    return np.sort(np.concatenate(picked))


def _spaced(size: int, n: int) -> np.ndarray:
    """n of `size` positions: the middles of as many equal parts."""
    return (2 * np.arange(n) + 1) * size // (2 * n)


def packed(learned: Learned) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """As the head and the arrays of a state."""
    if learned.examples is not None:
        return {"keep": "examples", "names": learned.names}, {"examples": learned.examples, "labels": learned.labels}
    own = {"counts": learned.counts, "scores": learned.scores, "labels": learned.labels}
    return {"keep": "sums", "names": learned.names}, {**own, **learned.fast}


def unpacked(graphs: Graphs, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Learned:
    """What `packed` gave; raises ValueError, KeyError or TypeError where it did not."""
    names, labels = head["names"], arrays["labels"]
    if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
        raise ValueError("names are no texts")
    _require(len(set(names)) == len(names) and labels.dtype == np.int64 and labels.ndim == 1, "labels")
    _require(not len(labels) or (labels.min() >= 0 and labels.max() < len(names)), "labels")
    if head["keep"] == "sums" and graphs.sums:
        return _sums(graphs, tuple(names), labels, arrays)
    examples = arrays["examples"]
    _require(head["keep"] == "examples" and examples.shape == (len(labels), *graphs.shape), "examples")
    _require(examples.dtype == np.float32 or (examples.dtype == np.uint8 and graphs.on_images), "examples")
    _require(bool(np.isfinite(examples).all()) and len(np.unique(labels)) == len(names), "examples")
    return _adapted(graphs, tuple(names), labels, examples)


def _sums(graphs: Graphs, names: tuple[str, ...], labels: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Learned:
    counts, scores = arrays["counts"], arrays["scores"]
    fast = {tensor: arrays[tensor] for tensor in (graphs.fast if names else ())}
    _require(counts.dtype == np.int64 and counts.shape == (len(names),) and bool((counts > 0).all()), "counts")
    _require(scores.dtype == np.float32 and scores.shape == labels.shape and bool(np.isfinite(scores).all()), "scores")
    for tensor, value in fast.items():
        _require(value.dtype == np.float32 and bool(np.isfinite(value).all()), tensor)
        _require(value.shape == (len(names), *graphs.fast[tensor]), tensor)
    return Learned(names, counts, labels, None, scores, fast)


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(f"{what} do not fit the bundle or the names")


def _adapted(graphs: Graphs, names: tuple[str, ...], labels: np.ndarray, examples: np.ndarray) -> Learned:
    """From the start, on all examples or as many as can be read at once."""
    if examples.nbytes > MOST_STATE_BYTES:
        most = MOST_STATE_BYTES // (examples.nbytes // len(examples))
        raise DeviceError(
            f"{len(examples)} examples are too many, a state holds {most}; forget a class or enroll fewer"
        )
    some, fast = _at_once(graphs, labels), dict[str, np.ndarray]()
    if names:
        fast = graphs.adapt(graphs.input(examples[some]), _onehot(labels[some], len(names)))
    counts = np.bincount(labels, minlength=len(names)).astype(np.int64)
    return Learned(names, counts, labels, examples, np.zeros(0, np.float32), fast)


def _summed(
    graphs: Graphs, learned: Learned, names: tuple[str, ...], examples: np.ndarray, labels: np.ndarray
) -> Learned:
    """Sums of the old and the new, and of the new the scores that `left_out` cannot find any more."""
    way = len(names)
    fast = {tensor: _longer(learned.fast.get(tensor), (way, *shape)) for tensor, shape in graphs.fast.items()}
    for own in _parts(graphs, examples, labels, way, BATCH):
        fast = {tensor: value + own[tensor] for tensor, value in fast.items()}
    counts = np.bincount(labels, minlength=way).astype(np.int64)
    counts[: len(learned.counts)] += learned.counts
    tried, tops = _tried(labels, counts), []
    for i, own in zip(tried, _parts(graphs, examples[tried], labels[tried], way, 1)):
        others = {tensor: value - own[tensor] for tensor, value in fast.items()}
        tops.append(graphs.logits(examples[i : i + 1], others, way).max())
    scores = np.concatenate([learned.scores, np.array(tops, np.float32)])
    whose = np.concatenate([learned.labels, labels[tried]])
    newest = np.sort(np.concatenate([np.flatnonzero(whose == label)[-NEWEST:] for label in range(way)]))
    return Learned(names, counts, whose[newest], None, scores[newest], fast)


def _parts(
    graphs: Graphs, examples: np.ndarray, labels: np.ndarray, way: int, size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The fast tensors of so many examples at a time."""
    for i in range(0, len(examples), size):
        yield graphs.adapt(graphs.input(examples[i : i + size]), _onehot(labels[i : i + size], way))


def _longer(value: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """With rows of zeros for classes that are new."""
    longer = np.zeros(shape, np.float32)
    if value is not None:
        longer[: len(value)] = value
    return longer


def _at_once(graphs: Graphs, labels: np.ndarray) -> np.ndarray:
    """The examples that are adapted to: all where the time for them is small."""
    return balanced(labels, MOST_AT_ONCE if graphs.on_images or graphs.steps is None else len(labels))


def _tried(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The examples to leave out: at most `LEFT_OUT`, all of classes that have others."""
    several = np.flatnonzero(counts[labels] > 1)
    several = several[balanced(labels[several], LEFT_OUT)]
    return several if len(several) <= LEFT_OUT else several[_spaced(len(several), LEFT_OUT)]


def _onehot(labels: np.ndarray, way: int) -> np.ndarray:
    return np.eye(way, dtype=np.float32)[labels]


def _alike(graphs: Graphs, examples: Many) -> Many:
    """All uint8 or all float32."""
    return examples if len({one.dtype for one in examples}) == 1 else [graphs.input(one) for one in examples]
