#!/usr/bin/env python3
"""Run an edgemeta bundle: learn new classes from a few images, predict, keep the state. Needs numpy and onnxruntime.

    device = Device("bundle")
    device.enroll({"cup": [image, image], "pen": [image, image]})
    names, probabilities = device.predict([image])
    names, probabilities = device.predict([image], unknown=0.05)  # a name is None: neither cup nor pen
    with device.updating("state.npz"):  # loaded where it exists, saved at the end
        device.forget("pen")

or, over folders with one directory per class (this needs Pillow):

    python edgemeta_device.py enroll bundle images/ --state state.npz
    python edgemeta_device.py predict bundle photo.png --state state.npz --unknown

Its other files lie beside it. The format of bundle and state is specified in export/README.md.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import edgemeta_commands as commands
    import edgemeta_files as files
    import edgemeta_learned as learning
    import numpy as np
    from edgemeta_files import DeviceError, Name
    from edgemeta_graphs import Graphs, Many
    from edgemeta_images import Image, UnreadableImage
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    needed = "copy all files of the bundle, and pip install numpy onnxruntime"
    print(f"error: no module {missing.name}; {needed}", file=sys.stderr)
    sys.exit(2)

Made = Callable[[Any], np.ndarray]
__all__ = ["Device", "DeviceError", "UnreadableImage", "main"]


class Device:
    """A bundle and what it has learned. Several threads may predict while others teach.

    `keep="examples"`: each change adapts to all examples from the start. `keep="sums"`, where the manifest's
    `learner.sums` allows it: only sums are kept, and memory and time do not grow with the shots. A state that was
    summed up stays so.
    """

    def __init__(self, bundle_folder: Name, threads: int = 1, *, keep: str = "examples"):
        if keep not in learning.KEEP:
            raise DeviceError(f"keep={keep!r} is unknown; choose one of {', '.join(learning.KEEP)}")
        self._graphs, self._keep = Graphs(bundle_folder, threads), keep
        self.manifest = self._graphs.manifest
        if keep == "sums" and not self._graphs.sums:
            raise DeviceError(f"{self.manifest['learner']['name']} has no sums that more shots add to; keep examples")
        self._learned = learning.nothing(self._graphs, keep)
        self._tops = (self._learned, np.zeros(0, np.float32))
        self._writing, self._born = threading.RLock(), files.now()
        self._files: dict[str, str] = {}  # states that were loaded or saved, and their SHA-256

    @property
    def names(self) -> list[str]:
        """The classes in the order of their first example."""
        return list(self._learned.names)

    @property
    def counts(self) -> dict[str, int]:
        """How many examples of each class were learned from."""
        learned = self._learned
        return dict(zip(learned.names, learned.counts.tolist()))

    @property
    def keep(self) -> str:
        """What is kept of what was learned."""
        return learning.KEEP[self._learned.examples is None]

    # Learning: an error leaves what was known

    def enroll(self, images: Any, labels: str | Sequence[str] | None = None) -> None:
        """Learn from a mapping of name -> images, or from images and their names; new names become new classes."""
        flat, names = _pairs(images, labels)
        self.enroll_examples([self.example(image) for image in flat], names)

    def enroll_examples(self, examples: Many, names: Sequence[str]) -> None:
        """`enroll`, of what `example` made of each image."""
        if not len(examples):
            raise DeviceError("no images to enroll; pass at least one for a class")
        with self._writing:
            self._learned = learning.more(self._graphs, self._learned, examples, names)

    def example(self, image: Image) -> np.ndarray:
        """What is kept of an image: its features, or the preprocessed image where the learner works on images."""
        return self._graphs.example(image)

    def forget(self, name: str) -> None:
        """Drop a class and its examples."""
        with self._writing:
            if name not in self._learned.names:
                known = ", ".join(self._learned.names) or "none"
                raise DeviceError(f"no class {name!r} to forget; enrolled: {known}")
            self._learned = learning.without(self._graphs, self._learned, name)

    # Predicting

    def predict(self, images: Many, unknown: float | None = None) -> tuple[list[Any], np.ndarray]:
        """The most probable class of each image, and its probability (n,).

        With `unknown`, a share, the name is None where the image is less like any class than all but this share of
        the enrolled examples (see `threshold`); the probability is that of the best class all the same.
        """
        return self._answers(images, self._graphs.example, unknown)

    def predict_examples(self, examples: Many, unknown: float | None = None) -> tuple[list[Any], np.ndarray]:
        """`predict`, of what `example` made of each image."""
        return self._answers(examples, np.asarray, unknown)

    def _answers(self, items: Many, made: Made, unknown: float | None) -> tuple[list[Any], np.ndarray]:
        learned = self._learned  # whatever is learned from here on
        logits = self._logits(learned, items, made)
        names: list[Any] = [learned.names[i] for i in logits.argmax(1)]
        least = -math.inf if unknown is None else self._threshold(learned, unknown)
        if least is None:
            warnings.warn("no class has two examples, so nothing is called unknown; enroll more", stacklevel=3)
            least = -math.inf
        known = logits.max(1) >= least
        return [name if sure else None for name, sure in zip(names, known)], _softmax(logits).max(1)

    def probabilities(self, images: Many) -> np.ndarray:
        """(n, way), columns in the order of `names`."""
        return _softmax(self.logits(images))

    def logits(self, images: Many) -> np.ndarray:
        """(n, way), columns in the order of `names`."""
        return self._logits(self._learned, images, self._graphs.example)

    def threshold(self, unknown: float = 0.05) -> float | None:
        """The logit under which an image's largest is unknown; None where no class has two examples.

        Examples of such classes, at most 40, are left out one by one, and asked of what the others teach. With their
        n largest logits in rising order it is number floor(unknown * n), counted from 0: so many lie below it.
        """
        return self._threshold(self._learned, unknown)

    def _threshold(self, learned: learning.Learned, unknown: float) -> float | None:
        if not 0 <= unknown < 1:
            raise DeviceError(f"unknown={unknown!r} is no share of the examples; give 0 or more, and less than 1")
        known = self._tops
        if known[0] is not learned:
            known = self._tops = learned, np.sort(learning.left_out(self._graphs, learned))
        tops = known[1]
        return float(tops[math.floor(unknown * len(tops))]) if len(tops) else None

    def _logits(self, learned: learning.Learned, items: Many, made: Made) -> np.ndarray:
        if not learned.names:
            raise DeviceError("no classes are enrolled; enroll some images first")
        return self._graphs.logits(items, learned.fast, len(learned.names), made)

    # State

    def save(self, path: Name) -> None:
        """Write the state: a power cut leaves the old one or the new one. A file that another has changed since this
        device loaded or saved it, or has written since this device began, is not overwritten."""
        with files.locked(path), self._writing:
            self._save(path)

    def load(self, path: Name) -> None:
        """Replace what was learned by a saved state of this very bundle."""
        head, arrays, read = files.read_state(path, self.manifest["id"])
        with files.damage_told(path):
            learned = learning.unpacked(self._graphs, head, arrays)
        if self._keep == "sums" and learned.examples is not None:
            empty, names = learning.nothing(self._graphs, "sums"), [learned.names[i] for i in learned.labels]
            learned = learning.more(self._graphs, empty, learned.examples, names) if names else empty
        with self._writing:
            self._learned, self._files[os.path.realpath(path)] = learned, read

    @contextlib.contextmanager
    def updating(self, path: Name, wait_s: float = files.LOCK_S) -> Iterator[None]:
        """Learn into a state file: loaded where it exists, saved at the end; other processes wait meanwhile."""
        with files.locked(path, wait_s):
            if os.path.lexists(path):
                self.load(path)
            yield
            with self._writing:
                self._save(path)

    def _save(self, path: Name) -> None:
        known, target = self._files.get(os.path.realpath(path)), Path(path)
        if target.exists() and (files.digest(path) != known if known else target.stat().st_mtime >= self._born):
            raise DeviceError(f"{path} was changed by another process meanwhile; load it and enroll again")
        head, arrays = learning.packed(self._learned)
        head.update(version=files.STATE_VERSION, bundle=self.manifest["id"])
        self._files[os.path.realpath(path)] = files.write_state(path, head, arrays)


def _pairs(images: Any, labels: str | Sequence[str] | None) -> tuple[list[Image], list[str]]:
    """Images and their class names, one by one."""
    if isinstance(images, Mapping):
        empty = [name for name, several in images.items() if not len(several)]
        if empty:
            raise DeviceError(f"class {empty[0]!r} has no images; pass at least one, or leave the class out")
        labels = [name for name, several in images.items() for _ in several]
        images = [image for several in images.values() for image in several]
    names = [labels] * len(images) if isinstance(labels, str) else list(labels or ())
    if len(images) != len(names):
        raise DeviceError(f"{len(images)} images but {len(names)} labels; pass one name for each image")
    if not all(isinstance(name, str) and name for name in names):
        raise DeviceError("a label is not a name; pass non-empty strings")
    return list(images), names


def _softmax(logits: np.ndarray) -> np.ndarray:
    scores = np.exp(logits - logits.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def main(given: Sequence[str] | None = None) -> int:
    return commands.main(given, Device)


if __name__ == "__main__":
    sys.exit(main())
