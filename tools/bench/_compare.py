"""A result beside a stored one: each value, how it changed, how much it may, and whether it is worse than that.

What may change how far is said for each value in `RULES`. Ratios within one run and accuracies can be compared wherever
they were measured; seconds and milliseconds (`clock`) only on the same kind of processor, and are not judged
on another. The interval of an accuracy is that of its test tasks; it says nothing of another training.

A shortened run is compared with one that was shortened in the same way, or not at all: it trains for less, on fewer
networks, so its values are other quantities, not noisier ones; no tolerance makes up for that. So none is stored, and
`--against` names another run, of an older commit on the same machine. Nor are runs with other settings compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from math import hypot
from typing import Any, NamedTuple

from _rows import Record

SETTINGS = {  # of a run, as it tells them
    "minutes", "hours", "episodes", "test_episodes", "search_episodes", "supernet_minutes", "seconds", "nets", "cells",
    "tasks", "draws", "seeds", "rounds", "steps", "turns", "repeats", "queries", "asks_past_queries", "trials", "rungs",
    "front", "learner", "arch", "also_val", "split", "space", "way", "width",
}  # fmt: skip
MORE, LESS = 1, -1  # what is better
RATIO, POINTS, CLOCK, INTERVAL = "ratio", "points", "clock", "interval"


class Rule(NamedTuple):
    values: str  # a pattern of names; the first that fits counts
    better: int
    kind: str
    by: float = 0.0  # a share of the stored value; points as they are; nothing for intervals


RULES: Mapping[str, tuple[Rule, ...]] = {
    "end_to_end": (Rule("*_s", LESS, CLOCK, 0.3), Rule("broken_caps", LESS, POINTS)),
    "first_bundle": (
        Rule("*_s", LESS, CLOCK, 0.5),
        Rule("broken_caps", LESS, POINTS),
        Rule("*_zoo_percent", MORE, INTERVAL),
        Rule("accuracy_gap_vs_scratch", LESS, POINTS, 1.0),
    ),
    "latency_speed": (
        Rule("archs_per_s*", MORE, CLOCK, 0.3),
        Rule("times_faster", MORE, RATIO, 0.3),
        Rule("largest_difference", LESS, POINTS, 1e-6),
    ),
    "host_latency": (
        Rule("within10_*", MORE, POINTS, 0.02),
        Rule("mape_*", LESS, POINTS, 0.005),
        Rule("spearman_*", MORE, POINTS, 0.002),
        Rule("coverage90_low", MORE, POINTS, 0.05),
        Rule("coverage90_high", LESS, POINTS, 0.03),
    ),
    "unseen_device": (
        Rule("*_spearman", MORE, POINTS, 0.002),
        Rule("coverage90_min", MORE, POINTS, 0.01),
        Rule("coverage90_max", LESS, POINTS, 0.01),
        Rule("fit_ms", LESS, CLOCK, 0.5),
    ),
    "meta_speed": (Rule("*ratio_*", MORE, RATIO, 0.15), Rule("*difference_*", LESS, POINTS, 1e-10)),
    "omniglot": (Rule("*", MORE, INTERVAL),),
    "omniglot_deep": (Rule("*", MORE, INTERVAL),),
    "edge_front": (
        Rule("*hypervolume_ratio_vs_random", MORE, INTERVAL),
        Rule("gain_*", MORE, POINTS, 0.4),
        Rule("found_vs_conv4_accuracy", MORE, POINTS, 0.4),
        Rule("found_vs_conv4_latency_ratio", LESS, RATIO, 0.15),
    ),
    "supernet_rank": (Rule("kendall_b", MORE, POINTS, 0.2), Rule("kendall_b_5s", MORE, POINTS, 0.2)),
    "darts_cells": (Rule("gain_*", MORE, POINTS, 0.5), Rule("latency_ratio", LESS, RATIO, 0.15)),
    "joint": (Rule("5w?s", MORE, INTERVAL), Rule("params_k", LESS, POINTS, 5.0)),
    "initializer": (Rule("gain_*", MORE, POINTS, 2.0),),
    "first_proposal": (Rule("first_s", LESS, CLOCK, 1.0), Rule("grown_mib", LESS, POINTS, 5.0)),
    "constrained_search": (
        Rule("metapolicy_broken", LESS, POINTS),
        Rule("*_regret*", LESS, POINTS, 0.05),
        Rule("metapolicy_timings", LESS, POINTS),
        Rule("metapolicy_queries", LESS, POINTS),
        Rule("query_ratio_best_other", MORE, RATIO, 0.1),
    ),
    "search_macro": (Rule("broken", LESS, POINTS), Rule("mean_regret", LESS, POINTS, 0.1)),
    "device_runtime": (
        Rule("*_ratio_*", LESS, RATIO, 0.15),
        Rule("*_ms", LESS, CLOCK, 0.3),
        Rule("max_diff_float", LESS, POINTS, 2e-5),
        Rule("max_diff_int8", LESS, POINTS, 0.004),
    ),
    "learn_on_device": (Rule("max_accuracy_gap_vs_torch", LESS, POINTS, 0.05), Rule("*", MORE, POINTS, 0.5)),
    "learner_cost": (Rule("*_us", LESS, CLOCK, 0.3), Rule("*_kib", LESS, POINTS)),
    "kill_test": (*(Rule(name, LESS, POINTS) for name in ("lost", "corrupt", "orphans", "different")),),
    "fuzz": (Rule("foreign_errors", LESS, POINTS), Rule("peak_mb", LESS, POINTS, 20.0)),
    "scale": (
        Rule("speedup_*", MORE, RATIO, 0.1),
        Rule("search_s", LESS, CLOCK, 0.3),
        Rule("ask_ms_10k", LESS, CLOCK, 0.5),
    ),
    "scale_growth": (Rule("tasks_per_s_*", MORE, CLOCK, 0.3), Rule("*", LESS, CLOCK, 0.5)),
    "torchrun_speed": (Rule("times_*", MORE, RATIO, 0.15), Rule("tasks_per_s_*", MORE, CLOCK, 0.3)),
}


def compared(name: str, stored: Record, now: Record) -> list[dict[str, Any]]:
    """A row for each value of either."""
    if stored.get("quick", "") != now.get("quick", ""):
        return [{"benchmark": name, "value": "all", "worse": "not compared: shortened in another way"}]
    kept, own = stored["extra"], now["extra"]
    if others := sorted(name for name in SETTINGS & kept.keys() & own.keys() if str(kept[name]) != str(own[name])):
        why = {"benchmark": name, "worse": "not compared: another setting"}
        return [why | {"value": each, "stored": str(kept[each]), "now": str(own[each])} for each in others]
    alike = all(stored.get(fact) == now.get(fact) for fact in ("cpu", "cores"))
    return list(_rows(name, stored, now, alike))


def _rows(name: str, stored: Record, now: Record, alike: bool) -> Iterator[dict[str, Any]]:
    for value in dict.fromkeys([*stored["values"], *now["values"]]):
        old, new = stored["values"].get(value), now["values"].get(value)
        row = {"benchmark": name, "value": value, "stored": told(old), "now": told(new)}
        rule = next((rule for rule in RULES[name] if fnmatchcase(value, rule.values)), None)
        if old is None or new is None:
            yield row | {"worse": "YES: gone" if rule and new is None else "not stored" if rule else "not judged"}
        elif rule is None:
            yield row | {"change": f"{new - old:+.3g}", "worse": "not judged"}
        elif rule.kind == CLOCK and not alike:
            yield row | {"change": f"{new - old:+.3g}", "worse": "not judged: another processor"}
        else:
            allowed, change = allowance(rule, value, stored, now), new - old
            relative = rule.kind in (RATIO, CLOCK) and old
            shown = f"{new / old:.3g} ×" if relative else f"{change:+.3g}"
            limit = f"{1 - rule.better * rule.by:.3g} ×" if relative else f"{-rule.better * allowed:+.3g}"
            worse = -rule.better * change > allowed * (1 + 1e-9)
            yield row | {"change": shown, "allowed": limit, "worse": "YES" if worse else "no"}


def allowance(rule: Rule, value: str, stored: Record, now: Record) -> float:
    """How far a value may get worse, in its own unit."""
    if rule.kind == INTERVAL:
        return hypot(ci95(stored, value), ci95(now, value))
    return rule.by * abs(stored["values"][value]) if rule.kind in (RATIO, CLOCK) else rule.by


def ci95(record: Record, value: str) -> float:
    """Half the width of a value's interval: beside it, or in the row of the learner it belongs to."""
    values = record["values"]
    for known in (f"{value}_ci95", value.replace("_percent", "_ci95"), value.replace("_vs_random", "_ci95")):
        if known != value and known in values:
            return values[known]
    learner, _, task = value.rpartition("_")
    return next(row[f"{task}_ci95"] for row in record["rows"] if row.get("learner") == learner)


def told(value: float | None) -> str | None:
    return None if value is None else f"{value:.5g}"
