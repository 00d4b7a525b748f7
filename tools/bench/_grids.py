"""Tables whose rows are those of one benchmark: networks, learners, splits, searchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

from _rows import NOTHING, Record, brief, goals, grid, marked, shown

from edgemeta.report.tables import Column
from edgemeta.report.tables import table as aligned

TASKS = {"5w1s": "5-way 1-shot", "5w5s": "5-way 5-shot", "20w1s": "20-way 1-shot", "20w5s": "20-way 5-shot"}
LEARNED = ("protonet", "anil", "maml-norm", "maml-last", "maml", "reptile")
DEVICES = {
    "ort_1t": "ONNX Runtime, 1 thread",
    "ort_2t": "ONNX Runtime, 2 threads",
    "ort_int8": "ONNX Runtime, int8",
    "node_wasm": "onnxruntime-web (wasm) under Node",
}
RANKED = {
    "5s": "five seconds of training",
    "random_init": "random weights",
    "params": "parameters",
    "supernet": "a supernet, {trained}",
    "supernet_5s": "five seconds that begin with the supernet's weights",
    "macs": "multiply-accumulates",
}


def omniglot(record: Record) -> str:
    """Each accuracy with its interval, and the published one behind it."""
    rows = []
    for row in record["rows"]:
        cells = {"learner": row["learner"], "parameters": f"{row['params_k']:.0f} k"}
        for at, task in TASKS.items():
            paper = "" if row[f"{at}_published"] is None else f" ({row[f'{at}_published']:g})"
            own = marked(f"{row[at]:.2f}", "omniglot", f"{row['learner']}_{at}", record)
            cells[task] = f"{own} ± {row[f'{at}_ci95']:.2f}{paper}"
        rows.append(cells | {"published by": row["source"] or NOTHING})
    return aligned(rows, markdown=True)


def equal_latency(record: Record) -> str:
    """Networks trained alike: the well-known ones, and the one found under a third of Conv4-64's latency."""
    nets = {row["network"]: row for row in record["rows"] if "network" in row}
    chosen = {"found": next((row for name, row in nets.items() if name.startswith("found, conv4-64 /")), None)}
    chosen |= {name: row for name, row in nets.items() if not name.startswith("found")}
    rows = [
        [name, f"{row['latency_ms']:.3f} ms", f"{row['params_k']:.0f} k"]
        + [f"{row[at]:.2f} ± {row[f'{at}_ci95']:.2f}" for at in TASKS]
        for name, row in chosen.items()
        if row
    ]
    return grid(["network", "latency", "parameters", *TASKS.values()], rows)


def fronts(record: Record) -> str:
    """Hypervolume over random search's in equal time, on both data sets."""
    rows = [row for row in record["rows"] if row.get("searcher")]
    told = []
    for name in dict.fromkeys(row["searcher"] for row in rows):
        own = {row["data"]: row for row in rows if row["searcher"] == name}
        each = [
            f"{own[data]['ratio']:.2f} ± {own[data]['ratio_sd']:.2f}" if data in own else NOTHING
            for data in ("omniglot", "glyphs")
        ]
        told.append([name, *each, f"{mean(row['networks'] for row in own.values()):.0f}"])
    return grid(["searcher", "times as much, Omniglot", "glyphs", "networks trained"], told)


def supernet_rank(record: Record) -> str:
    rows = []
    by = {row["by"]: row for row in record["rows"]}
    updates, minutes = (record["extra"][name] for name in ("updates", "supernet_minutes"))
    trained = f"{updates} updates" if record.get("quick") else f"{minutes:g} minutes of training"
    for name, what in RANKED.items():
        row, value = by[name], "kendall_b" if name == "supernet" else f"kendall_b_{name}"
        told = marked(shown(row["kendall_b"], ".2c"), "supernet_rank", value, record)
        span = f"{shown(row['low'], '.2c')} to {shown(row['high'], '.2c')}"
        what = what.format(trained=trained)
        rows.append([what, told, span, goal("supernet_rank", value, ".2c")])
    return grid(["by", "Kendall-b", "interval", "goal"], rows)


def darts_cells(record: Record) -> str:
    own, cells = record["values"], len(record["rows"])
    rows = [
        [
            TASKS[at],
            *(f"{own[f'{who}_{at}']:.2f}" for who in ("found", "random_mean", "random_best")),
            shown(own[f"gain_{at}"], "+.2f"),
            shown(own[f"spreads_{at}"], ".2f"),
            f"{own[f'rank_{at}']:.0f} of {cells}",
        ]
        for at in ("5w1s", "20w1s")
    ]
    heads = [
        "accuracy",
        "found",
        "random cells, mean",
        "the best of them",
        "found above their mean",
        "in their deviations",
    ]
    return grid([*heads, "place"], rows)


def goal(bench: str, name: str, form: str) -> str:
    """What a value should be; nothing where nobody said."""
    if name not in goals().get(bench, {}):
        return ""
    sign, number = goals()[bench][name]
    return f"{'≥' if sign == '>=' else '≤'} {shown(number, form)}"


def _covered(share: float, ends: tuple[str, str], record: Record) -> str:
    """The share that an interval holds, bold where it is outside of what the goals of both ends allow."""
    low, high = (goals()[record["name"]][end][1] for end in ends)
    told = shown(share, ".0%")
    return told if record.get("quick") or low <= share <= high else f"**{told}**"


def unseen_device(record: Record) -> str:
    found = {(row["split"], row["k"], row["method"]): row for row in record["rows"]}
    heads = ["split", "3 timings", "5", "10", "goal at 10", "20", "10 at random", "ridge on sources"]
    heads += ["ridge on physical sums", "FLOPs", "within 10 %", "in the 90 % interval"]

    def rank(split: str, k: int, method: str = "active") -> str:
        return shown(found[split, k, method]["spearman"], ".3c")

    rows = []
    for split in dict.fromkeys(row["split"] for row in record["rows"]):
        name, ours = f"{split.lower()}_k10_spearman", found[split, 10, "active"]
        peers = [rank(split, 10, method) for method in ("random", "ridge_sources", "ridge_physical")]
        shares = [
            shown(ours["within10"], ".0%"),
            _covered(ours["coverage90"], ("coverage90_min", "coverage90_max"), record),
        ]
        ten = marked(rank(split, 10), "unseen_device", name, record)
        own = [rank(split, 3), rank(split, 5), ten, goal("unseen_device", name, ".3c"), rank(split, 20)]
        rows.append([split, *own, *peers, rank(split, 0, "flops"), *shares])
    return grid(heads, rows)


def device(record: Record) -> str:
    """Milliseconds of each network in every runtime."""
    found = {(row["net"], row["pixels"], row["what"]): row for row in record["rows"]}

    def ms(row: Mapping[str, Any], runtime: str) -> str:
        value = row.get(f"{runtime}_ms")
        return NOTHING if value is None else f"{value:.3g}"

    rows = []
    for net, pixels in dict.fromkeys((row["net"], row["pixels"]) for row in record["rows"]):
        infer, head, step = (found[net, pixels, what] for what in ("infer", "head, anil", "full"))
        own = [net, str(pixels)]
        own += [ms(infer, runtime) for runtime in ("onnxruntime", "executorch", "torch", "node", "wasm", "c")]
        rows.append([*own, ms(head, "onnxruntime"), ms(head, "c"), ms(step, "onnxruntime"), ms(step, "torch")])
    heads = ["network", "pixels", "ONNX Runtime", "ExecuTorch", "torch", "Node", "wasm in Chromium", "plain C"]
    return grid([*heads, "head adapts (ANIL)", "in C", "full step", "torch"], rows)


def learn_on_device(record: Record) -> str:
    found = {(row["learner"], row["data"], row["shot"]): row for row in record["rows"]}
    rows = []
    for name in LEARNED:
        if (name, "digits", 5) not in found:
            continue
        kinds = [found[name, data, shot] for data in ("held-out scripts", "digits") for shot in (1, 5, 20)]
        cost = found[name, "held-out scripts", 5]
        ms, kib = cost["adapt_us"] / 1e3, cost["kib"]
        adapts = "nothing (class means)" if name == "protonet" else cost["changes"]
        memory = f"{kib / 1024:.1f} MiB" if kib >= 1024 else f"{kib:.0f} KiB"
        rows.append([name, adapts, *(f"{row['device']:.1f}" for row in kinds), f"{brief(ms)} ms", memory])
    heads = ["learner", "adapts", "scripts, 1 shot", "5", "20", "digits, 1 shot", "5", "20"]
    return grid([*heads, "adapting to 5 classes of 5", "memory for it"], rows)


def constrained_search(record: Record) -> str:
    own = record["values"]

    def regret(name: str) -> list[str]:
        told = marked(f"{own[name]:.2f}", "constrained_search", name, record)
        return [told, goal("constrained_search", name, ".2f")]

    queries, timings = f"{own['metapolicy_queries']:.0f}", f"{own['metapolicy_timings']:.0f}"
    asked, unanswered = record["extra"]["asks_past_queries"], record["extra"]["queries_until_our_regret"]
    naive = "sources' mean accuracy, the same latency predictor"
    rows = [
        ["meta-policy", timings, queries, *regret("metapolicy_regret")],
        ["meta-policy", timings, "none", *regret("metapolicy_regret_0q")],
        [naive, f"{own['naive_timings']:.0f}", queries, *regret("naive_regret")],
        ["the same", f"{own['naive_timings_0q']:.0f}", "none", *regret("naive_regret_0q")],
    ]
    told = [[*row, f"{own['metapolicy_broken']:.0f}" if row[0] == "meta-policy" else ""] for row in rows]
    times, aim = asked / own["metapolicy_queries"], f"{goal('constrained_search', 'query_ratio_best_other', 'g')} ×"
    for name in (name for name, needed in unanswered.items() if needed):
        told.append([name, "one per proposal", f"{unanswered[name]:.0f}", "as low as the first row", aim, ""])
    if never := ", ".join(name for name, needed in unanswered.items() if not needed):
        above = f"above the first row: {times:.0f} times its queries are not enough"
        told.append([never, "one per proposal", str(asked), above, aim, ""])
    return grid(["search", "timings", "accuracy queries", "regret", "goal", "caps broken"], told)


def search_macro(record: Record) -> str:
    every = record["extra"]["searches"]
    rows = []
    for name in dict.fromkeys(row["searcher"] for row in every):
        own = [row for row in every if row["searcher"] == name]
        aim = goal("search_macro", "mean_regret", ".2f") if name == "metapolicy" else ""
        broken = sum(row["broken"] for row in own)
        rows.append((mean(row["regret"] for row in own), name, aim, f"{broken} of {len(own)}"))
    told = [[name, f"{regret:.2f}", aim, broken] for regret, name, aim, broken in sorted(rows)]
    return grid(["searcher", "mean regret", "goal", "budgets broken"], told)


def host_latency(record: Record) -> str:
    own, rows = record["values"], []
    for name, what in DEVICES.items():
        if f"within10_{name}" not in own:
            continue

        def at(value: str, form: str, name: str = name) -> str:
            return marked(shown(own[f"{value}_{name}"], form), "host_latency", f"{value}_{name}", record)

        aim = goal("host_latency", f"within10_{name}", ".0%")
        inside = _covered(own[f"coverage90_{name}"], ("coverage90_low", "coverage90_high"), record)
        told = [at("within10", ".1%"), aim, at("mape", ".1%"), at("spearman", ".4f"), inside]
        rows.append([what, *told, at("raw_within10", ".1%"), at("raw_mape", ".1%")])
    heads = ["device", "within 10 %", "goal", "mean error", "Spearman", "inside the 90 % interval"]
    return grid([*heads, "raw within 10 %", "raw mean error"], rows)


def learner_cost(record: Record) -> str:
    columns = (
        Column("learner"),
        Column("body", "of the body, it changes"),
        Column("torch_us", "adapt, torch [µs]", ".0f"),
        Column("onnx_us", "adapt, ONNX Runtime [µs]", ".0f"),
        Column("fast_kib", "keeps [KiB]", ".1f"),
    )
    return aligned(record["rows"], columns, markdown=True)


def initializer(record: Record) -> str:
    figures = {
        "glyphs_5w1s": "glyphs, 5 ways",
        "glyphs_20w1s": "20",
        "faint_5w1s": "faint, 5 ways",
        "faint_20w1s": "20",
    }
    figures |= {"digits_5w1s": "digits, 5 ways"}
    starts = dict.fromkeys(row["start"] for row in record["rows"])
    rows = []
    for start in starts:
        own = [row for row in record["rows"] if row["start"] == start]
        means = [f"{mean(row[at] for row in own):.1f} ± {mean(row[f'{at}_ci95'] for row in own):.1f}" for at in figures]
        rows.append([start, f"{mean(row['train_episodes'] for row in own):.0f}", *means])
    return grid(["start", "training episodes", *figures.values()], rows)


def joint(record: Record) -> str:
    own, row = record["values"], record["rows"][0]
    told = [f"{own[at]:.2f} ± {own[f'{at}_ci95']:.2f}" for at in ("5w1s", "5w5s")]
    ours = ["found here", f"{own['params_k']:.0f} k", *told, f"{own['search_s']:.0f} s", f"{row['train_s']:.0f} s"]
    published = [
        "T-NAS (Lian 2020), queries normalised by one another",
        "25 k",
        f"{row['5w1s_published']:g}",
        "",
        "",
        "",
    ]
    return grid(["cell", "parameters", TASKS["5w1s"], TASKS["5w5s"], "search", "training"], [ours, published])


def first_proposal(record: Record) -> str:
    rows = [
        [f"`{row['searcher']}`", f"{row['first_s']:.2f} s", f"{brief(row['ask_ms'])} ms"]
        + [f"{row['grown_mib']:.0f} MiB", f"{row['proposals']:,}"]
        for row in record["rows"]
    ]
    return grid(["searcher", "first network under the cap", "a proposal", "memory grows by", "in proposals"], rows)


def torchrun_speed(record: Record) -> str:
    rows = [[str(row["processes"]), f"{row['tasks_per_s']:.1f}", f"{row['times']:.2f} ×"] for row in record["rows"]]
    told = "One training by processes that `torchrun` starts (`tools/bench/torchrun_speed.py`), equal to the bit:"
    return f"{told}\n\n{grid(['processes', 'tasks a second', 'over the first'], rows)}"


GRIDS: Mapping[str, tuple[str, Callable[[Record], str]]] = {  # table -> benchmark, and what draws it
    "omniglot": ("omniglot", omniglot),
    "omniglot_deep": ("omniglot_deep", omniglot),
    "fronts": ("edge_front", fronts),
    "equal_latency": ("edge_front", equal_latency),
    "supernet_rank": ("supernet_rank", supernet_rank),
    "darts_cells": ("darts_cells", darts_cells),
    "joint": ("joint", joint),
    "initializer": ("initializer", initializer),
    "unseen_device": ("unseen_device", unseen_device),
    "host_latency": ("host_latency", host_latency),
    "device": ("device_runtime", device),
    "learner_cost": ("learner_cost", learner_cost),
    "learn_on_device": ("learn_on_device", learn_on_device),
    "constrained_search": ("constrained_search", constrained_search),
    "search_macro": ("search_macro", search_macro),
    "first_proposal": ("first_proposal", first_proposal),
    "torchrun_speed": ("torchrun_speed", torchrun_speed),
}
