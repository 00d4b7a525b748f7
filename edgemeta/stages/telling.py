"""What commands tell of a run folder and its bundles: text for the terminal, and the same as facts for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemeta.lowering import bundle as bundles
from edgemeta.lowering.manifest import Manifest
from edgemeta.report.story import energy_rate
from edgemeta.report.tables import table
from edgemeta.stages import assemble
from edgemeta.stages.candidates import inference_ms
from edgemeta.stages.run_folder import RunFolder
from edgemeta.stages.summary import bundles_of, on_farm
from edgemeta.terminal import Told, told
from edgemeta.types import Cost, Profile, dotted

TIMINGS = ("body_ms", "classify_ms", "adapt_ms")  # of a bundle, in the order of a query, then of learning
SHOWN = 5  # of a ranking
MEANS = {
    "latency_ms": "latency, image to answer",
    "ram_kib": "RAM, live activations",
    "flash_kib": "flash, weights and graphs",
    "energy_mj": "energy of an inference",
}
VERDICTS = {None: "", True: "holds", False: "broken"}
UNITS = {"ms": "ms", "kib": "KiB", "mj": "mJ"}


def search(folder: RunFolder) -> Told:
    """The ranking, the network chosen, what it takes and whether that holds the caps."""
    noted = folder.need("search", "search")
    ranking, winner = [_ranked(entry) for entry in noted["ranking"]], noted["winner"]
    refused = f"; {len(noted['refused'])} before it broke a cap when measured" if noted["refused"] else ""
    there = (folder.bundle / "manifest.json").exists()
    why = "the device is not this machine" if there else "there is no bundle"
    how = "measured here" if winner["measured"] else f"predicted, not measured: {why}"
    how = winner["how"] if noted["config"].get("devices") else how
    rest = len(ranking) - SHOWN
    lines = [table([row | {"energy_mj": energy_text(row["energy_mj"])} for row in ranking[:SHOWN]])]
    if rest > 0:
        lines.append(f"{SHOWN} of {len(ranking)} networks; all of them: {folder.root / 'search.json'}")
    manifest = bundles.read(folder.bundle) if there else None
    cost = _as_measured_last(winner, manifest)
    lines += [f"chosen {dotted(winner['picks'])}: {cost} ({how}{refused})", *on_farm(noted)]
    facts: dict[str, Any] = {"device": noted["device"], "ranking": ranking, "refused": len(noted["refused"])}
    facts["chosen"] = {**cost.to_json(), "picks": dotted(winner["picks"]), "how": how}
    if manifest:
        lines += [*costs_text(manifest), *precision_text(folder.bundle, manifest), str(folder.bundle)]
        facts |= {"bundle": bundle_facts(folder.bundle, manifest), "precision": manifest.facts.get("precision")}
    return told("\n".join(lines), facts)


def _as_measured_last(winner: Mapping[str, Any], manifest: Manifest | None) -> Cost:
    """What the network takes: a bundle is measured whenever it is written, and its manifest has the last time."""
    cost = Cost.from_json(winner["cost"])
    if not manifest or not manifest.costs.measured or manifest.facts.get("picks") != list(winner["picks"]):
        return cost
    return replace(cost, latency_ms=manifest.costs.measured.inference_ms)


def _ranked(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "validation_percent": 100 * entry["score"],
        "episodes": entry["fidelity"],
        "predicted_ms": entry["cost"]["latency_ms"],
        "ram_kib": entry["cost"]["ram_kib"],
        "flash_kib": entry["cost"]["flash_kib"],
        "energy_mj": entry["cost"].get("energy_mj"),
        "picks": dotted(entry["picks"]),
    }


def costs(manifest: Manifest) -> list[dict[str, Any]]:
    """What an inference takes, by name: predicted, measured where it was, the cap where one is set, and whether it
    holds; the measured value counts where there is one."""
    predicted, caps = manifest.costs.predicted, manifest.costs.caps
    measured: dict[str, float | None] = {"flash_kib": manifest.costs.graph_kib}
    if timed := manifest.costs.measured:
        measured["latency_ms"] = timed.inference_ms
    found = []
    for name in MEANS:
        own, cap = measured.get(name), getattr(caps, name)
        guess = getattr(predicted, name)
        counts = guess if own is None else own
        holds = None if cap is None else counts is not None and counts <= cap
        found.append({"cost": name, "predicted": guess, "measured": own, "cap": cap, "holds": holds})
    return found


def costs_text(manifest: Manifest) -> Iterator[str]:
    """Each cost beside its cap, and what a measured latency is made of."""
    known = [row for row in costs(manifest) if any(row[name] is not None for name in ("predicted", "measured", "cap"))]
    capped = any(row["cap"] is not None for row in known)
    yield table([_cost_row(row) | ({"": VERDICTS[row["holds"]]} if capped else {}) for row in known])
    if not capped:
        yield "no caps are set: --latency-ms, --ram-kib and --flash-kib set them"
    if measured := manifest.costs.measured:
        parts = [("body alone", measured.body_ms), ("answer from its features", measured.classify_ms)]
        sums = " + ".join(f"{name} {part.median_ms:.4g} ms" for name, part in parts if part)
        yield f"latency measured: {sums}, each by itself"
        yield "latency predicted: at the usual speed of the device while it was profiled, with a typical answer"


def _cost_row(row: Mapping[str, Any]) -> dict[str, Any]:
    unit = UNITS[row["cost"].rsplit("_", 1)[1]]
    shown = {name: "-" if row[name] is None else f"{row[name]:.4g} {unit}" for name in ("predicted", "measured", "cap")}
    return {"of the whole network": MEANS[row["cost"]], **shown}


def bundle_facts(path: Path, manifest: Manifest) -> dict[str, Any]:
    """A bundle: its costs, and its timings by graph; `inference_ms` is body and classification one after another."""
    measured = manifest.costs.measured
    facts: dict[str, Any] = {
        "bundle": path,
        "learner": manifest.learner.name,
        "precision": manifest.precision,
        "flash_kib": manifest.costs.graph_kib,
        "ram_kib": manifest.costs.predicted.ram_kib,
        "energy_mj": manifest.costs.predicted.energy_mj,
        "predicted_ms": manifest.costs.predicted.latency_ms,
    }
    if measured:
        facts["inference_ms"] = measured.inference_ms
        facts |= {name: part.median_ms for name in TIMINGS if (part := getattr(measured, name))}
        facts |= {"measured_on": measured.measured_on, "device": measured.device, "threads": measured.threads}
    return facts | {"costs": costs(manifest)}


def test_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per learner and data set, a column per number of shots."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault((row["learner"], row["data"]), {"learner": row["learner"], "test_data": row["data"]})
        line[f"{row['way']}w{row['shot']}s"] = f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}"
    return list(lines.values())


def energy_text(mj: float | None) -> float | str:
    """For tables: energy is told where it was measured, and never guessed."""
    return "not measured" if mj is None else mj


def exported(target: Path) -> Told:
    """The bundle at `target` and its siblings side by side, and each that breaks a cap."""
    found = {path: bundles.read(path) for path in bundles_of(target)}
    facts = [bundle_facts(path, manifest) for path, manifest in found.items()]
    left_out = ("costs", "measured_on", "device", "threads")
    rows = [{name: value for name, value in own.items() if name not in left_out} for own in facts]
    lines = [table([row | {"energy_mj": energy_text(row["energy_mj"])} for row in rows])]
    if any("inference_ms" in row for row in rows):
        lines.append("measured: inference, image to answer, is body + classify; adapt learns 5 classes of 5 examples")
    for path, manifest in found.items():
        lines += precision_text(path, manifest)
        lines += [
            f"{path.name}: {MEANS[row['cost']]}: {row['measured'] or row['predicted']:.4g} of {row['cap']:.4g}  broken"
            for row in costs(manifest)
            if row["holds"] is False
        ]
    precisions = {path.name: own.facts["precision"] for path, own in found.items() if "precision" in own.facts}
    return told("\n".join(lines), {"bundles": facts, "precision": precisions})


def precision_text(bundle: Path, manifest: Manifest) -> Iterator[str]:
    """Both bodies side by side, where there was a choice."""
    chosen: Any = manifest.facts.get("precision")
    if chosen:
        yield table([{"body": name, **chosen[name]} for name in ("fp32", "int8")])
        yield f"{bundle.name} is {chosen['precision']}: {chosen['why']}; accuracy is of {chosen['accuracy_of']}"


def devices(found: Mapping[str, Profile]) -> Told:
    keys = ("device", "runtime", "threads", "precision", "measured_on", "synthetic")
    rows = [
        {"name": name, **{key: getattr(profile, key) for key in keys}, "energy": energy_rate(profile)}
        for name, profile in found.items()
    ]
    here = {"name": assemble.HOST, "device": "this machine, profiled on first use"}
    return told(table([here, *rows]), {"devices": [here, *rows]})


def bench(manifest: Manifest, measured: Mapping[str, Any]) -> Told:
    """Each graph as timed now beside what the manifest says, and the whole beside prediction and cap."""
    noted, rows = manifest.costs.measured, []
    for name in TIMINGS:
        if now := measured.get(name):
            before = getattr(noted, name) if noted else None
            row = {"graph": name.removesuffix("_ms"), "here_ms": now["median_ms"], "iqr_ms": now["iqr_ms"]}
            rows.append(row | {"manifest_ms": before.median_ms if before else None})
    total, cap_ms = inference_ms(measured), manifest.costs.caps.latency_ms
    device = manifest.facts.get("device")
    here = not isinstance(device, str) or device.startswith(assemble.HOST)  # another device's cap says nothing here
    holds = total <= cap_ms if cap_ms is not None and here else None
    guess = manifest.costs.predicted.latency_ms
    then = noted.inference_ms if noted else None
    parts = "body + classify" if measured.get("body_ms") else "classify, which takes the image"
    lines = [
        table(rows),
        f"one inference, image to answer ({parts}): measured now {total:.4g} ms, "
        + (f"measured on {noted.measured_on} {then:.4g} ms, " if noted and then else "")
        + f"predicted {'-' if guess is None else f'{guess:.4g}'} ms",
    ]
    if cap_ms is not None:
        verdict = f"  {VERDICTS[holds]}" if here else f" on {device}: this machine does not tell whether that holds"
        lines.append(f"its cap is {cap_ms:.4g} ms{verdict}")
    facts = {"graphs": rows, "inference_ms": total, "predicted_ms": guess, "manifest_ms": then}
    facts |= {"cap_ms": cap_ms, "holds": holds, "device": measured["device"], "threads": measured["threads"]}
    return told("\n".join(lines), facts | {"runtime": measured["runtime"], "measured_on": measured["measured_on"]})
