"""The command line of the device runtime: folders of images in, names out, mistakes in one line and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from edgemeta_files import DeviceError
from edgemeta_images import UnreadableImage

if TYPE_CHECKING:
    from edgemeta_device import Device

INTERRUPTED = 130
UNKNOWN = 0.05  # share of the enrolled examples that `--unknown` alone accepts to lose
NAMED = 8  # files that are named where more are skipped


class Told(NamedTuple):
    """What a command tells: lines for people, and the same as JSON types for programs (`--json`)."""

    lines: Sequence[str] = ()
    facts: Mapping[str, Any] = {}


def run_info(device: Device, arguments: argparse.Namespace) -> Told:
    parts = ("id", "learner", "normalisation", "precision", "costs", "facts", "versions")
    facts = {part: device.manifest.get(part) for part in parts}
    rows = list(about(device.manifest))
    if arguments.state:
        device.load(arguments.state)
        facts.update(keep=device.keep, examples=device.counts)
        rows += [("kept", device.keep), ("classes", _counts(device))]
    return Told([f"{name:14} {text}" for name, text in rows if text], facts)


def about(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A name and a line for each thing that a manifest says; nothing of what it does not say."""
    rule, learner, facts = (_part(manifest, name) for name in ("normalisation", "learner", "facts"))
    costs, versions = _part(manifest, "costs"), _part(manifest, "versions")
    measured, picks = _part(costs, "measured"), facts.get("picks")
    yield "bundle", str(manifest.get("id"))[:16]
    yield "learner", f"{learner.get('name')}, which learns from {learner.get('on')}"
    bright = ", bright ink on dark ground: dark ink is turned over" if rule.get("polarity") == "ink-high" else ""
    yield "images", f"{rule.get('channels')} x {rule.get('height')} x {rule.get('width')}{bright}"
    if isinstance(picks, list):
        yield "network", f"{facts.get('space')}:{'.'.join(map(str, picks))}, {manifest.get('precision')}"
    if facts.get("data"):
        yield "meta-trained", f"on {facts['data']}, {facts.get('episodes')} episodes"
    yield "made for", str(facts.get("device") or "")
    yield "predicted", _costs(_part(costs, "predicted"))
    yield "caps", _costs(_part(costs, "caps"))
    times = {name: _part(measured, f"{name}_ms").get("median_ms") for name in ("body", "classify", "adapt")}
    timed = [f"{name} {ms:.4g} ms" for name, ms in times.items() if isinstance(ms, (int, float))]
    if timed:
        where = f"{measured.get('device')}, {measured.get('threads')} thread(s), {measured.get('measured_on')}"
        yield "measured", f"{', '.join(timed)} ({where})"
    for row in facts.get("tests") or ():
        if isinstance(row, Mapping) and {"way", "shot", "accuracy", "ci95"} <= set(row):
            figure = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f} %"
            yield "accuracy", f"{figure} on {row.get('data')}, {row['way']} classes, {row['shot']} example(s) each"
    yield "made with", ", ".join(f"{name} {version}" for name, version in versions.items())


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    return found if isinstance(found, Mapping) else {}


def _costs(of: Mapping[str, Any]) -> str:
    units = {"latency_ms": "ms", "ram_kib": "KiB of RAM", "flash_kib": "KiB of flash", "energy_mj": "mJ"}
    known = {name: of[name] for name in units if isinstance(of.get(name), (int, float))}
    return ", ".join(f"{value:.4g} {units[name]}" for name, value in known.items())


def run_enroll(device: Device, arguments: argparse.Namespace) -> Told:
    root = arguments.folder
    if not root.is_dir():
        raise DeviceError(f"{root} is not a folder; name one with a directory of images for each class")
    found, skipped = readable(device, [path for path in files_below(root) if path.parent != root])
    names = [path.relative_to(root).parts[0] for path, _ in found]
    empty = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."} - set(names)
    if empty:
        raise DeviceError(f"class {min(empty)!r} in {root} holds no readable image; add some or remove it")
    if not names:
        raise DeviceError(f"{root} has no folders of images; make one for each class and put its images there")
    with device.updating(arguments.state):
        if arguments.keep and arguments.keep != device.keep:
            note = f"{arguments.state} keeps {device.keep}, from which no {arguments.keep} come back"
            print(f"{note}: --keep is passed over; a new --state keeps {arguments.keep}", file=sys.stderr)
        device.enroll_examples([example for _, example in found], names)
    if len(device.names) == 1:
        print("one class alone is the answer to every image; teach another", file=sys.stderr)
    facts = {"images": len(found), "skipped": skipped, "state": str(arguments.state), **_taught(device)}
    return Told([f"{len(found)} images enrolled; examples by class: {_counts(device)}"], facts)


def run_forget(device: Device, arguments: argparse.Namespace) -> Told:
    with device.updating(arguments.state):
        for name in arguments.names:
            device.forget(name)
    facts = {"forgotten": list(arguments.names), "state": str(arguments.state), **_taught(device)}
    return Told([f"forgotten; examples by class: {_counts(device)}"], facts)


def load(device: Device, state: Path) -> None:
    if not state.exists():
        raise DeviceError(f"{state} is missing: nothing is taught yet; `enroll` does, or name one with --state")
    device.load(state)


def _taught(device: Device) -> dict[str, Any]:
    return {"keep": device.keep, "examples": device.counts}


def run_predict(device: Device, arguments: argparse.Namespace) -> Told:
    load(device, arguments.state)
    paths = [path for given in arguments.images for path in (files_below(given) if given.is_dir() else [given])]
    found, skipped = readable(device, paths)
    if not found:
        raise DeviceError("no readable image to predict; name image files or folders of them")
    unknown = _possible(device, arguments.unknown)
    answers = [*answered(device, found, unknown)]
    asked = [(path.parent.name, own["class"]) for (path, _), own in zip(found, answers)]
    asked = [(folder, name) for folder, name in asked if folder in device.names]
    right = sum(folder == name for folder, name in asked)
    if any(own["class"] is None for own in answers):
        least = "less like any class than all but"
        print(
            f"unknown: {least} {unknown:.3g} of the enrolled examples; the number is the probability of the class "
            "that it is most like, were it one of those taught",
            file=sys.stderr,
        )
    if asked:
        print(f"{right} of {len(asked)} are what their folder is called", file=sys.stderr)
    facts = {"answers": answers, "skipped": skipped, "unknown": unknown}
    facts["folders"] = {"images": len(asked), "right": right}
    return Told([*map(_answer, answers)], facts)


def run_watch(device: Device, arguments: argparse.Namespace) -> Told:
    """Until Ctrl-C. What another process teaches meanwhile is known from the next look on."""
    load(device, arguments.state)
    unknown, taught = _possible(device, arguments.unknown), _mark(arguments.state)
    looks = appearing(arguments.folder, _marks(arguments.folder), arguments.every, device.example)
    print(f"watching {arguments.folder}; Ctrl-C ends it", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        for found in looks:
            if found and _mark(arguments.state) != taught:
                taught = _mark(arguments.state)
                device.load(arguments.state)
            if found:
                print(*map(_answer, answered(device, found, unknown)), sep="\n", flush=True)
    return Told()


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


def answered(
    device: Device, found: Sequence[tuple[Path, np.ndarray]], unknown: float | None
) -> Iterator[dict[str, Any]]:
    """Of each image its class, or None where it is unknown, the class it is most like, and the probability of that."""
    examples = [example for _, example in found]
    nearest, probabilities = device.predict_examples(examples)
    names = nearest if unknown is None else device.predict_examples(examples, unknown)[0]
    for (path, _), name, like, probability in zip(found, names, nearest, probabilities):
        yield {"image": str(path), "class": name, "most_like": like, "probability": round(float(probability), 6)}


def _answer(own: Mapping[str, Any]) -> str:
    return f"{own['image']}\t{'unknown' if own['class'] is None else own['class']}\t{own['probability']:.3f}"


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


def readable(device: Device, paths: Sequence[Path]) -> tuple[list[tuple[Path, np.ndarray]], list[str]]:
    """The images that can be read, as examples, and why others cannot, which one line on stderr tells as well."""
    found, skipped = [], []
    for path in paths:
        try:
            found.append((path, device.example(path)))
        except UnreadableImage as error:
            skipped.append(str(error))
    if skipped:
        more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        print(f"skipped {len(skipped)} of {len(paths)} images: {'; '.join(skipped[:NAMED])}{more}", file=sys.stderr)
    return found, skipped


def _counts(device: Device) -> str:
    return json.dumps(device.counts, ensure_ascii=False)


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
        command.set_defaults(run=run, keep=None, json=False)
        if command is not watch:
            command.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else there")
    enroll.add_argument("folder", type=Path, help="one directory of images for each class")
    keep = "what a new state keeps: examples (default), or sums, where the learner has them, which do not grow"
    enroll.add_argument("--keep", help=keep)
    forget.add_argument("names", nargs="+", metavar="class", help="names of classes")
    predict.add_argument("images", type=Path, nargs="+", help="image files or folders of them")
    watch.add_argument("folder", type=Path, help="where another program puts images, such as the frames of a camera")
    watch.add_argument("--every", type=float, default=0.5, help="seconds from look to look (default: 0.5)")
    share = "call unknown what is less like any class than all but this share of the enrolled examples: the larger, "
    share += "the more is unknown (without a number: 0.05); the probability stays that of the class it is most like"
    for command in (predict, watch):
        command.add_argument("--unknown", type=float, nargs="?", const=UNKNOWN, metavar="SHARE", help=share)
    return parser


def main(given: Sequence[str] | None, open_device: Callable[..., Device]) -> int:
    """The exit code: 0, 2 for a mistake the user can mend, 130 after Ctrl-C."""
    arguments = _parser().parse_args(given)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        device = open_device(arguments.bundle, max(1, arguments.threads), keep=arguments.keep or "examples")
        told = arguments.run(device, arguments)
        if arguments.json:
            print(json.dumps({"command": arguments.command, **told.facts}, indent=1))
        else:
            print(*told.lines, sep="\n", end="\n" if told.lines else "")
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the state is as it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # as `| head` leaves it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
