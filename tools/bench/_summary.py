"""The rows of the tables of "what | measured | goal": README's, and those of docs/results.md."""

from __future__ import annotations

from _rows import HEADINGS, Row, Words

DEMO, PICK, WITHIN = "end_to_end", "first_bundle", "host_latency"
HEAD = Row(
    "a head's adaptation (ANIL, five steps)", "device_runtime", "{head_adapt_ms:.3f} ms", "≤ {head_adapt_ms:g} ms"
)

ENGLISH = Words(
    headings=HEADINGS,
    either=" or ",
    to=" to ",
    ran_on="On {cores} cores of {machines}, one thread unless it says otherwise.",
    again=" `python {command} NAME` runs a row again.",
    bold=" Bold misses its goal, as {missed} of {goals} values do ([which](docs/results.md#goals-that-are-missed)).",
)
README = (
    Row(
        "the whole demo, from nothing to report; a second budget after it",
        DEMO,
        "{total_s:.0f} s; {second_search_s:.0f} s",
        "≤ {total_s:g} s; {second_search_s:g} s",
    ),
    Row(
        "`edgemeta pick`: device, caps and 25 images to a checked bundle, in a fresh process; then the next device",
        PICK,
        "{shipped_weights_s:.1f} s; {next_device_s:.1f} s",
        "≤ {shipped_weights_s:g} s; {next_device_s:g} s",
    ),
    Row(
        "points by which {minutes} minutes of search from scratch are ahead of it (below 0: behind): glyphs; digits",
        PICK,
        "{glyphs_gap_percent:.1f}; {accuracy_gap_vs_scratch:.1f}",
        "≤ {accuracy_gap_vs_scratch:g}",
    ),
    Row(
        "{nets} networks never timed, predicted within 10 % of their latency: one thread; two; int8; wasm under Node",
        WITHIN,
        "{within10_ort_1t:.1%}; {within10_ort_2t:.1%}; {within10_ort_int8:.1%}; {within10_node_wasm:.1%}",
        "≥ {within10_ort_1t:.0%}; {within10_ort_2t:.0%}; {within10_ort_int8:.0%}; {within10_node_wasm:.0%}",
    ),
    Row(
        "share of them inside the 90 % interval, least and most of the four",
        WITHIN,
        "{coverage90_low:.0%}; {coverage90_high:.0%}",
        "{coverage90_low:.0%} to {coverage90_high:.0%}",
    ),
    Row(
        "rank correlation on devices seen ten times (FBNet, split FD)",
        "unseen_device",
        "{fd_k10_spearman:.3c}",
        "≥ {fd_k10_spearman:.3c}",
    ),
    Row("architectures predicted in a second, one core", "latency_speed", "{archs_per_s:.1M}", "≥ {archs_per_s:.0M}"),
    Row(
        "second-order MAML over `higher`, tasks a second: one core; two",
        "meta_speed",
        "{ratio_higher_1core:.2f}; {ratio_higher_2core:.2f} ×",
        "≥ {ratio_higher_1core:g}; {ratio_higher_2core:g} ×",
    ),
    Row(
        "Omniglot, 5-way 1-shot, {minutes} minutes of one core: ProtoNet; the best of {learners} learners ({best})",
        "omniglot",
        "{protonet_5w1s:.2f} %; {best_5w1s:.2f} %",
        "≥ {protonet_5w1s:g} %, as published",
    ),
    Row("goals of learners on Omniglot that are missed, of {goals}", "omniglot", "{short}", "0"),
    Row(
        "front of the meta-policy over random search's in the same time, hypervolume",
        "edge_front",
        "{hypervolume_ratio_vs_random:.2f} ± {hypervolume_ratio_ci95:.2f} ×",
        "≥ {hypervolume_ratio_vs_random:g} ×",
    ),
    Row(
        "search on an unseen device and data set, {metapolicy_timings:.0f} timings, {metapolicy_queries:.0f} queries: "
        "points below the best network; caps broken",
        "constrained_search",
        "{metapolicy_regret:.2f}; {metapolicy_broken:.0f}",
        "≤ {metapolicy_regret:.2f}; {metapolicy_broken:g}",
    ),
    Row(
        "search with latencies measured here, {queries} queries: points below the best network; budgets "
        "broken of {budgets}",
        "search_macro",
        "{mean_regret:.2f}; {broken}",
        "≤ {mean_regret:.2f}; {broken:g}",
    ),
    Row("rank correlation of a supernet with training alone", "supernet_rank", "{kendall_b:.2c}", "≥ {kendall_b:.2c}"),
    Row(
        "inference over ExecuTorch's (XNNPACK), the worst of {networks} networks; " + HEAD.what,
        "device_runtime",
        "{infer_ratio_vs_executorch:.2f} ×; " + HEAD.measured,
        "≤ {infer_ratio_vs_executorch:g} ×; {head_adapt_ms:g} ms",
    ),
    Row(
        "a training step of the whole network in ONNX over torch's, the worst of {networks}",
        "device_runtime",
        "{full_step_ratio_vs_torch:.2f} ×",
        "≤ {full_step_ratio_vs_torch:g} ×",
    ),
    Row(
        "accuracy after learning on the device, points from torch's, the most of {learners} learners",
        "learn_on_device",
        "{max_accuracy_gap_vs_torch:.2f}",
        "≤ {max_accuracy_gap_vs_torch:g}",
    ),
    Row(
        "lost, damaged, left running or different after {kills} kills at random moments",
        "kill_test",
        "{lost}, {corrupt}, {orphans}, {different}",
        "{lost:g}",
    ),
    Row(
        "foreign errors in {inputs:,} malformed files; memory they take at most",
        "fuzz",
        "{foreign_errors}; {peak_mb:.0f} MB",
        "{foreign_errors:g}; ≤ {peak_mb:g} MB",
    ),
    Row(
        "one search by two processes on PostgreSQL over one process",
        "scale",
        "{speedup_2_workers_postgres:.2f} ×",
        "≥ {speedup_2_workers_postgres:g} ×",
    ),
)

RESULTS = (
    Row("the whole demo, from nothing to report", DEMO, "{total_s:.0f} s", "≤ {total_s:g} s"),
    Row(
        "a second budget in the same run folder: a checked bundle",
        DEMO,
        "{second_search_s:.0f} s",
        "≤ {second_search_s:g} s",
    ),
    Row("caps broken when measured again", DEMO, "{broken_caps}", "{broken_caps:g}"),
    Row(
        "`edgemeta pick`, in a fresh process and an empty run folder: device, caps and 25 images to a checked bundle",
        PICK,
        "{shipped_weights_s:.1f} s",
        "≤ {shipped_weights_s:g} s",
    ),
    Row("the next cap; the next device", PICK, "{next_cap_s:.1f} s; {next_device_s:.1f} s", "≤ {next_device_s:g} s"),
    Row(
        "its accuracy on 5 new classes, 5 images each, and that of {minutes} minutes of search from scratch under the "
        "same cap: glyphs; digits",
        PICK,
        "{glyphs_zoo_percent:.1f} % and {glyphs_scratch_percent:.1f} %; {digits_zoo_percent:.1f} % and "
        "{digits_scratch_percent:.1f} %",
        "≤ {accuracy_gap_vs_scratch:g} behind",
    ),
    Row(
        "architectures predicted in a second, one core (a device seen ten times)",
        "latency_speed",
        "{archs_per_s:.1M}",
        "≥ {archs_per_s:.0M}",
    ),
    Row(
        "enrol 5 classes × 5 shots at 28×28 (ProtoNet), from arrays, in Python",
        "device_runtime",
        "{enroll_ms:.2f} ms",
        "≤ {enroll_ms:g} ms",
    ),
    Row("predict one image, all in all", "device_runtime", "{predict_ms:.2f} ms", "≤ {predict_ms:g} ms"),
    Row(
        "second-order MAML, tasks per second against `higher`, one core (worst of {steps} inner steps)",
        "meta_speed",
        "{ratio_higher_1core:.2f} ×",
        "≥ {ratio_higher_1core:g} ×",
    ),
    Row(
        "the same against `torchopt`; against a plain loop",
        "meta_speed",
        "{ratio_torchopt_1core:.2f} ×; {ratio_loop_1core:.2f} ×",
        "≥ {ratio_torchopt_1core:g} ×",
    ),
    Row(
        "on two cores, against `higher`; `torchopt`; a plain loop",
        "meta_speed",
        "{ratio_higher_2core:.2f} ×; {ratio_torchopt_2core:.2f} ×; {ratio_loop_2core:.2f} ×",
        "≥ {ratio_higher_2core:g} ×",
    ),
)

DEVICE = (
    Row(
        "inference over ExecuTorch's (XNNPACK), the worst of {networks}; geometric mean",
        "device_runtime",
        "{infer_ratio_vs_executorch:.2f}; {infer_ratio_mean:.2f}",
        "≤ {infer_ratio_vs_executorch:g}",
    ),
    HEAD,
    Row(
        "a step of the whole network over torch's, the worst; geometric mean",
        "device_runtime",
        "{full_step_ratio_vs_torch:.2f}; {full_step_ratio_mean:.2f}",
        "≤ {full_step_ratio_vs_torch:g}",
    ),
    Row(
        "answers against torch's, in all of these runtimes",
        "device_runtime",
        "{max_diff_float:.0e}",
        "≤ {max_diff_float:.0e}",
    ),
    Row(
        "class probabilities of int8 networks against the same arithmetic in torch; against float",
        "device_runtime",
        "{max_diff_int8:.3f}; {int8_to_float_probability:.3f}",
        "≤ {max_diff_int8:g}",
    ),
)

ROBUST = (
    Row(
        "finished trainings lost, files damaged, processes left, results that differ from an undisturbed run, in "
        "{kills} kills",
        "kill_test",
        "{lost}, {corrupt}, {orphans}, {different}",
        "{lost:g}",
    ),
    Row(
        "errors that are not ours in one line, in {inputs:,} malformed files",
        "fuzz",
        "{foreign_errors}",
        "{foreign_errors:g}",
    ),
    Row("memory that they made the process grow by, at most", "fuzz", "{peak_mb:.0f} MB", "≤ {peak_mb:g} MB"),
)

SCALE = (
    Row(
        "one search by two processes on PostgreSQL, whole commands, over one; both end with one ranking",
        "scale",
        "{speedup_2_workers_postgres:.2f} × ({took_1_s:.1f} s, {took_2_s:.1f} s)",
        "≥ {speedup_2_workers_postgres:g} ×",
    ),
    Row("an `ask` of `evolution` after {told:,} trials", "scale", "{evolution_ms:.2f} ms", "≤ {ask_ms_10k:g} ms"),
    Row(
        "… of `metaqnn`, `nsga2`, `enas`, `tpe`, `metapolicy`",
        "scale",
        "{metaqnn_ms:.2f}, {nsga2_ms:.1f}, {enas_ms:.1f}, {tpe_ms:.0f}, {metapolicy_ms:.0f} ms",
    ),
)

GROWTH = (
    Row("appending a trial, with {sizes} in the ledger (SQLite)", "scale_growth", "{append_ms} ms"),
    Row("opening and reading a ledger of so many", "scale_growth", "{open_s} s"),
    Row("memory for it", "scale_growth", "{ram_mib} MiB"),
    Row("its file", "scale_growth", "{file_mib} MiB"),
    Row(
        "meta-training Conv4-64 by two processes over one, tasks a second: ProtoNet; ANIL",
        "scale_growth",
        "{protonet_speedup:.2f} ×; {anil_speedup:.2f} ×",
    ),
)
