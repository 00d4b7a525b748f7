"""A made-up but plausible run in the `edge` space, for tests of the page and for looking at it."""

from __future__ import annotations

import math
from random import Random

from edgemeta.contracts import Latency
from edgemeta.latency.features import family
from edgemeta.report.drawing import label
from edgemeta.report.story import BundleFile, Check, DataFacts, Policy, Score, Story, Winner
from edgemeta.space.presets import edge, mobile, tapered
from edgemeta.types import Arch, Cost, Op, Timing, Trial

SPACE = edge()
CAP = Cost(0.35, 256.0, 512.0)
RUNGS = (240, 720, 2160)


def op_ms(op: Op) -> float:
    """A pretend device: launch time, multiply-accumulates (dearer in depthwise filters) and bytes moved."""
    rate = 9e6 if op.groups > 1 else 38e6
    return 0.0015 + op.macs / rate + op.act_bytes / 4e7


def cost(arch: Arch) -> Cost:
    ops = SPACE.ops(arch)
    ram = max(math.prod(op.in_shape) * 4 + op.act_bytes for op in ops) / 1024
    return Cost(sum(map(op_ms, ops)), ram, sum(op.weight_bytes for op in ops) / 1024 + 12)


def interval(ms: float) -> Latency:
    return Latency(ms, 0.92 * ms, 1.09 * ms)


def trials(count: int, rng: Random) -> list[Trial]:
    found = []
    for _ in range(count):
        arch = SPACE.sample(rng=rng)
        spent = cost(arch)
        if not spent.fits(CAP):
            found.append(Trial(arch, spent, None, None, 0, 7, 0.0, "evolution", "infeasible"))
            continue
        quality = 0.55 + 0.11 * math.log10(1 + spent.flash_kib) + 0.06 * math.log10(spent.latency_ms * 100)
        quality += rng.gauss(0, 0.03)
        for rung, episodes in enumerate(RUNGS[: rng.choice((1, 1, 2, 3))]):
            score = min(quality + 0.05 * rung, 0.98)
            found.append(Trial(arch, spent, score, 0.008, episodes, 7, 5.0 * 3**rung, "evolution", "ok"))
    return found


def scores(rng: Random) -> list[Score]:
    bases = {("protonet", "held-out scripts"): 0.93, ("protonet", "digits"): 0.80}
    bases |= {("anil", "held-out scripts"): 0.915, ("anil", "digits"): 0.825}
    return [
        Score(learner, data, way, shot, 1 - (1 - base) * shot**-0.62 * (1.8 if way == 20 else 1), 0.005, 1000)
        for (learner, data), base in bases.items()
        for way, counts in ((5, (1, 2, 3, 5, 10, 20)), (20, (1, 5)))
        for shot in counts
    ]


def _policy() -> Policy:
    """Larger options with more to spend; the last stages care most."""
    decisions = tuple((name, tuple(map(str, options))) for name, options in SPACE.slots)
    budgets_ms = (0.03, 0.06, 0.1, 0.2, 0.4)
    rows = []
    for at in range(len(budgets_ms)):
        row: list[float] = []
        for place, (_, options) in enumerate(decisions):
            pull = (at - 2) * place / len(decisions)
            weights = [math.exp(pull * i) for i in range(len(options))]
            row += [weight / sum(weights) for weight in weights]
        rows.append(tuple(row))
    changes = tuple(0.4 * place / len(decisions) for place in range(len(decisions)))
    others = {"device": tuple(0.3 * change for change in changes), "task": tuple(0.1 * change for change in changes)}
    return Policy(decisions, {"budget": changes, **others}, budgets_ms, tuple(rows))


def example(seed: int = 7, count: int = 60) -> Story:
    rng = Random(seed)
    ran = [*trials(count, rng), *(Trial(a, cost(a), 0.93, 0.006, 2160, 7, 45.0, "evolution", "ok") for a in [_small()])]
    ran.append(Trial(tapered(SPACE), cost(tapered(SPACE)), None, None, 240, 7, 1.0, "evolution", "failed: NaN loss"))
    feasible = [t for t in ran if t.status == "ok" and t.fidelity == RUNGS[-1]]
    best = max(feasible, key=lambda t: t.score or 0.0)
    ops = SPACE.ops(best.arch)
    ms = best.cost.latency_ms
    return Story(
        device="host-x86-2core",
        budget=CAP,
        winner=Winner(best.arch, "protonet", ops, interval(ms), Timing(1.04 * ms, 0.004, 400), *_memory(best.cost)),
        trials=tuple(ran),
        layers=(*((label(op), op_ms(op)) for op in ops), ("call overhead", 0.004)),
        checks=tuple(_checks(rng)),
        scores=tuple(scores(rng)),
        seed=seed,
        versions={
            "edgemeta": "0.1.0",
            "torch": "2.13.0",
            "onnxruntime": "1.31.0",
            "numpy": "2.4.1",
            "python": "3.11.9",
        },
        commands=("edgemeta demo --latency-ms 0.35 --ram-kib 256 --flash-kib 512 --seed 7 --out runs/demo",),
        stages=(("profile", 41.2), ("data", 3.4), ("search", 143.9), ("train", 62.0), ("export", 9.1), ("report", 0.3)),
        data=(
            DataFacts("glyphs", 29800, {"train": 448, "val": 63, "test": 234}, True),
            DataFacts("digits", 1797, {"test": 10}, notes=("skipped 2 unreadable images: a.png, b.png",)),
        ),
        profile={"Device": "host-x86-2core", "CPU": "Intel Xeon Platinum 8488C", "Frequency governor": "unknown"}
        | {"Threads": "1", "Precision": "fp32, batch 1", "Runtime": "onnxruntime", "Measured on": "2026-11-21"},
        policy=_policy(),
        drift=tuple((0.25 * at, 0.066 * math.exp(rng.gauss(0.02 * math.sin(at / 9), 0.02))) for at in range(150)),
        doubts=("other processes kept 1.2 cores busy at the start",),
        files=tuple(
            BundleFile(name, size, f"{rng.getrandbits(256):064x}")
            for name, size in {
                "body.onnx": 401233,
                "adapt.onnx": 2109,
                "classify.onnx": 1877,
                "manifest.json": 5120,
            }.items()
        ),
    )


def _small() -> Arch:
    """A MobileNetV2-like net a third as wide, so that the drawing has every kind of box and two residuals."""
    wide = SPACE.settings(mobile(SPACE))
    widths = (8, 16, 32, 64)
    return SPACE.arch([{**stage, "width": w, "kind": "mb3"} for stage, w in zip(wide, widths, strict=True)])


def _memory(spent: Cost) -> tuple[float, float]:
    return spent.ram_kib, spent.flash_kib


def _checks(rng: Random) -> list[Check]:
    found = []
    for group, count in (("profile", 20), ("search", 6)):
        for at in range(count):
            ops = SPACE.ops(SPACE.sample(rng=rng))
            ms = sum(map(op_ms, ops))
            shares: dict[str, float] = {}
            for op in ops:
                shares[family(op)] = shares.get(family(op), 0.0) + op_ms(op) / ms
            taken = ms * math.exp(rng.gauss(0.01, 0.06))
            found.append(Check(f"{group} net {at + 1}", group, interval(ms), taken, shares))
    return found
