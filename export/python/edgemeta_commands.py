"""The command line of the device runtime: folders of images in, names out, mistakes in one line and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from edgemeta_files import DeviceError
from edgemeta_images import UnreadableImage

if TYPE_CHECKING:
    from edgemeta_device import Device

INTERRUPTED = 130
UNKNOWN = 0.05  # share of the enrolled examples that `--unknown` alone accepts to lose


def run_info(device: Device, arguments: argparse.Namespace) -> None:
    for part in ("learner", "normalisation", "costs", "facts", "versions"):
        print(f"{part:14} {_json(device.manifest.get(part))}")
    if arguments.state:
        device.load(arguments.state)
        print(f"{'kept':14} {device.keep}\n{'classes':14} {_json(device.counts)}")


def run_enroll(device: Device, arguments: argparse.Namespace) -> None:
    root = arguments.folder
    if not root.is_dir():
        raise DeviceError(f"{root} is not a folder; name one with a directory of images for each class")
    found = readable(device, [path for path in files_below(root) if path.parent != root])
    names = [path.relative_to(root).parts[0] for path, _ in found]
    empty = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."} - set(names)
    if empty:
        raise DeviceError(f"class {min(empty)!r} in {root} holds no readable image; add some or remove it")
    if not names:
        raise DeviceError(f"{root} has no folders of images; make one for each class and put its images there")
    with device.updating(arguments.state):
        device.enroll_examples([example for _, example in found], names)
    print(f"{len(found)} images enrolled; examples by class: {_json(device.counts)}")
    if len(device.names) == 1:
        print("one class alone is the answer to every image; teach another", file=sys.stderr)


def run_forget(device: Device, arguments: argparse.Namespace) -> None:
    with device.updating(arguments.state):
        for name in arguments.names:
            device.forget(name)
    print(f"forgotten; examples by class: {_json(device.counts)}")


def run_predict(device: Device, arguments: argparse.Namespace) -> None:
    device.load(arguments.state)
    paths = [path for given in arguments.images for path in (files_below(given) if given.is_dir() else [given])]
    found = readable(device, paths)
    if not found:
        raise DeviceError("no readable image to predict; name image files or folders of them")
    names = tell(device, found, _possible(device, arguments.unknown))
    asked = [(path.parent.name, name) for (path, _), name in zip(found, names) if path.parent.name in device.names]
    if asked:
        right = sum(folder == name for folder, name in asked)
        print(f"{right} of {len(asked)} are what their folder is called", file=sys.stderr)


def run_watch(device: Device, arguments: argparse.Namespace) -> None:
    """Until Ctrl-C. What another process teaches meanwhile is known from the next look on."""
    device.load(arguments.state)
    unknown, taught = _possible(device, arguments.unknown), _mark(arguments.state)
    looks = appearing(arguments.folder, _marks(arguments.folder), arguments.every, device.example)
    print(f"watching {arguments.folder}; Ctrl-C ends it", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        for found in looks:
            if found and _mark(arguments.state) != taught:
                taught = _mark(arguments.state)
                device.load(arguments.state)
            if found:
                tell(device, found, unknown)


def appearing(
    folder: Path, known: dict[Path, Any], every_s: float, read: Callable[[Path], np.ndarray]
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Look by look, the images in a folder and its folders whose marks are not those that are known, and what `read`
    makes of them.

    A file that cannot be read may not be whole yet: it is tried once more, and again whenever it changes.
    """
    failed: dict[Path, Any] = {}
    while True:
        time.sleep(every_s)
        now, found = _marks(folder), []
        for path in [path for path, mark in now.items() if known.get(path) != mark]:
            try:
                found.append((path, read(path)))
            except UnreadableImage as error:
                if failed.get(path) != now[path]:
                    failed[path] = now.pop(path)
                    continue
                print(f"skipped: {error}", file=sys.stderr, flush=True)
            failed.pop(path, None)
        known = now
        yield found


def _marks(folder: Path) -> dict[Path, Any]:
    if not folder.is_dir():
        raise DeviceError(f"{folder} is not a folder; name one that images appear in")
    return {path: _mark(path) for path in files_below(folder)}


def _mark(path: Path) -> Any:
    """What changes with a file's content."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns


def tell(device: Device, found: Sequence[tuple[Path, np.ndarray]], unknown: float | None) -> list[Any]:
    """Print path, class and probability of each image, and return the classes."""
    names, probabilities = device.predict_examples([example for _, example in found], unknown)
    for (path, _), name, probability in zip(found, names, probabilities):
        print(f"{path}\t{'unknown' if name is None else name}\t{probability:.3f}", flush=True)
    return names


def _possible(device: Device, unknown: float | None) -> float | None:
    """None, said, where nothing tells what is unknown."""
    if unknown is not None and device.threshold(unknown) is None:
        print("nothing is called unknown: no class has two examples; enroll more", file=sys.stderr)
        return None
    return unknown


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and its folders, in order of their names; hidden ones are passed over."""
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [folder / path for path in inside if not any(part.startswith(".") for part in path.parts)]


def readable(device: Device, paths: Sequence[Path]) -> list[tuple[Path, np.ndarray]]:
    """The images that can be read, as examples; the others are named and counted on stderr."""
    found = []
    for path in paths:
        try:
            found.append((path, device.example(path)))
        except UnreadableImage as error:
            print(f"skipped: {error}", file=sys.stderr)
    if len(found) < len(paths):
        print(f"skipped {len(paths) - len(found)} of {len(paths)} images", file=sys.stderr)
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description="Learn and predict with an edgemeta bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    enroll = commands.add_parser("enroll", help="learn the classes of a folder, in addition to those of the state")
    predict = commands.add_parser("predict", help="name images: path, class and probability in each line")
    watch = commands.add_parser("watch", help="name images as they appear in a folder, until Ctrl-C")
    forget = commands.add_parser("forget", help="drop classes from the state")
    info = commands.add_parser("info", help="what the bundle is, and what a state holds")
    runs = {enroll: run_enroll, predict: run_predict, watch: run_watch, forget: run_forget, info: run_info}
    for command, run in runs.items():
        command.add_argument("bundle", type=Path)
        command.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
        state = None if command is info else Path("state.npz")
        command.add_argument("--state", type=Path, default=state, help=f"what was learned (default: {state})")
        command.set_defaults(run=run, keep="examples")
    enroll.add_argument("folder", type=Path, help="one directory of images for each class")
    enroll.add_argument("--keep", default="examples", help="examples, or sums where the learner has them")
    forget.add_argument("names", nargs="+", metavar="class", help="names of classes")
    predict.add_argument("images", type=Path, nargs="+", help="image files or folders of them")
    watch.add_argument("folder", type=Path, help="where another program puts images, such as the frames of a camera")
    watch.add_argument("--every", type=float, default=0.5, help="seconds from look to look (default: 0.5)")
    share = "call what is less like any class than all but this share of the enrolled examples unknown (alone: 0.05)"
    for command in (predict, watch):
        command.add_argument("--unknown", type=float, nargs="?", const=UNKNOWN, metavar="SHARE", help=share)
    return parser


def main(given: Sequence[str] | None, open_device: Callable[..., Device]) -> int:
    """The exit code: 0, 2 for a mistake the user can mend, 130 after Ctrl-C."""
    arguments = _parser().parse_args(given)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        device = open_device(arguments.bundle, max(1, arguments.threads), keep=arguments.keep)
        arguments.run(device, arguments)
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the state is as it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as `| head` leaves it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
