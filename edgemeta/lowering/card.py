"""The model card of a bundle: what its manifest says, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgemeta.lowering.manifest import Manifest, Measured, Spread
from edgemeta.types import dotted

NAME = "README.md"
UNITS = {"latency_ms": "ms", "ram_kib": "KiB of RAM", "flash_kib": "KiB of flash", "energy_mj": "mJ"}


def text(found: Manifest) -> str:
    """Markdown: what it is, what it costs, how accurate it is, where that ends."""
    parts = (_head(found), (*_costs(found), *_precision(found)), _accuracy(found), _limits(found), _use(found))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(found: Manifest) -> Iterator[str]:
    rule, facts = found.normalisation, found.facts
    yield f"# A network that goes on learning: {found.learner.name} on {facts.get('device', 'a device')}"
    yield ""
    yield (
        f"It takes images of {rule.channels} x {rule.height} x {rule.width} and learns classes from a few examples of "
        f"each, on the device, with the learner {found.learner.name}, which works on {found.learner.on}."
    )
    if "space" in facts:
        yield f"Network: {facts['space']}:{dotted(_list(facts.get('picks')))}."
    if "data" in facts:
        yield f"Meta-trained on {facts['data']}, {facts.get('episodes', '?')} episodes, seed {facts.get('seed', '?')}."


def _costs(found: Manifest) -> Iterator[str]:
    costs, measured = found.costs, found.costs.measured
    yield "## Cost"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| graphs on disk | {costs.graph_kib:.1f} KiB |"
    if found.learner.on == "features":
        yield f"| numbers of the network | {found.precision} |"
    yield f"| adapting to 5 classes of 5 examples | {costs.adapt_ram_kib:.0f} KiB of tensors at their peak |"
    for title, caps in (("predicted", costs.predicted), ("cap", costs.caps)):
        known = {name: getattr(caps, name) for name in UNITS if getattr(caps, name) is not None}
        for name, value in known.items():
            yield f"| {title} | {value:.3g} {UNITS[name]} |"
    if measured is None:
        yield "| measured | not yet: `edgemeta bench` times it |"
        return
    yield from _measured(measured)


def _measured(measured: Measured) -> Iterator[str]:
    names = {"body_ms": "image to features", "classify_ms": "one answer", "adapt_ms": "adapting, 5 classes of 5"}
    for name, title in names.items():
        spread: Spread | None = getattr(measured, name)
        if spread is not None:
            yield f"| {title} | {spread.median_ms:.3g} ms, half of {spread.n} runs within {spread.iqr_ms:.2g} |"
    where = f"{measured.device}, {measured.threads} thread(s), {measured.runtime}"
    yield f"| measured on | {where}, {measured.measured_on} |"


def _precision(found: Manifest) -> Iterator[str]:
    """Both bodies, where there was a choice."""
    told: Any = found.facts.get("precision")
    if not isinstance(told, Mapping):
        return
    yield ""
    yield f"The network ships in {told['precision']}: {told['why']}. Accuracy is of {told['accuracy_of']}."
    yield ""
    yield "| | accuracy | image to features | graphs on disk |"
    yield "|---|---|---|---|"
    for name in ("fp32", "int8"):
        row = told[name]
        accuracy = "not known" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
        spent = "not measured" if row["body_ms"] is None else f"{row['body_ms']:.3g} ms"
        yield f"| {name} | {accuracy} | {spent} | {row['graph_kib']:.1f} KiB |"


def _accuracy(found: Manifest) -> Iterator[str]:
    yield "## Accuracy"
    yield ""
    rows = [row for row in _list(found.facts.get("tests")) if isinstance(row, Mapping)]
    if not rows:
        yield "Not tested. `edgemeta train` tests a network on classes that no training saw."
        return
    float_body = ", before its numbers became int8 (above: what that changed)" if found.precision == "int8" else ""
    yield f"Of classes that no training saw, with 95 % intervals over tasks drawn at random{float_body}:"
    yield ""
    yield "| data | task | accuracy |"
    yield "|---|---|---|"
    for row in rows:
        share, ci95 = 100 * float(row["accuracy"]), 100 * float(row["ci95"])
        task = f"{row['way']} classes, {row['shot']} example(s) each"
        yield f"| {row['data']} ({row['split']}) | {task} | {share:.1f} ± {ci95:.1f} % |"


def _limits(found: Manifest) -> Iterator[str]:
    checked = found.checked
    worst = max(value for value in (checked.body, checked.adapt, checked.classify) if value is not None)
    yield "## Limits"
    yield ""
    yield "- It answers with one of the classes that it was taught, whatever it is shown. With `--unknown` it answers"
    yield "  unknown to what is less like any class than nearly all examples were, which is a help and no guarantee."
    yield "- Accuracy on other kinds of images than those above is not known: measure it on your own."
    yield f"- Its graphs differ from the trained network by at most {worst:.1g} (1 is the largest value, or 1)."
    yield f"- {_size(found)}"


def _size(found: Manifest) -> str:
    if found.learner.on == "images":
        return "It adapts weights of the network itself: a device keeps the examples and needs time to adapt."
    steps = found.learner.steps or "one per example"
    return f"A device keeps features of the examples, the network stays as it is. Steps: {steps}."


def _use(found: Manifest) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```"
    yield "python edgemeta_device.py enroll . images/ --state state.npz"
    yield "python edgemeta_device.py predict . photo.png --state state.npz"
    yield "```"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    yield f"Made with {versions}."
    yield "The runtime beside it is edgemeta's, licence Apache-2.0; for the weights, mind the licence of the data"
    yield "that they were trained on."


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
