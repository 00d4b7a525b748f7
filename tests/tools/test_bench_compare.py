"""A result beside a stored one: ratios anywhere, clocks on the same processor, accuracies by their intervals."""

from __future__ import annotations

import copy

import pytest
from _benches import BENCHES
from _compare import RULES, compared
from _tables import read
from all import RESULTS, compare

from edgemeta.files import write_json

STORED = read(RESULTS)


def verdicts(name: str, **values: float) -> dict[str, str]:
    """Of a result that is the stored one but for some values."""
    now = copy.deepcopy(STORED[name])
    now["values"] |= values
    return {row["value"]: row["worse"] for row in compared(name, STORED[name], now)}


@pytest.mark.parametrize("name", STORED)
def test_the_stored_result_is_no_worse_than_itself_and_every_rule_fits_a_value(name):
    rows = compared(name, STORED[name], STORED[name])
    judged = {row["value"] for row in rows if row["worse"] == "no"}
    assert {row["worse"] for row in rows} <= {"no", "not judged"} and judged
    assert len(RULES[name]) <= len(judged)


def test_every_benchmark_has_rules():
    assert set(RULES) == set(BENCHES)


def test_a_ratio_may_fall_by_its_tolerance_and_rise_by_anything():
    ratio = STORED["meta_speed"]["values"]["ratio_higher_1core"]
    assert verdicts("meta_speed", ratio_higher_1core=0.9 * ratio)["ratio_higher_1core"] == "no"
    assert verdicts("meta_speed", ratio_higher_1core=0.8 * ratio)["ratio_higher_1core"] == "YES"
    assert verdicts("meta_speed", ratio_higher_1core=9 * ratio)["ratio_higher_1core"] == "no"


def test_an_accuracy_may_fall_by_the_interval_of_the_difference():
    own = STORED["omniglot"]["values"]["protonet_5w1s"]  # ± .18 in both runs, so ± .25
    assert verdicts("omniglot", protonet_5w1s=own - 0.2)["protonet_5w1s"] == "no"
    assert verdicts("omniglot", protonet_5w1s=own - 0.3)["protonet_5w1s"] == "YES"


def test_errors_that_were_none_may_not_be_one():
    assert verdicts("fuzz", foreign_errors=1)["foreign_errors"] == "YES"


def test_clocks_of_another_processor_are_shown_and_not_judged():
    now = copy.deepcopy(STORED["end_to_end"])
    now["values"]["total_s"] *= 3
    rows = {row["value"]: row for row in compared("end_to_end", STORED["end_to_end"], now)}
    assert rows["total_s"]["worse"] == "YES" and rows["total_s"]["change"] == "3 ×"
    rows = {row["value"]: row for row in compared("end_to_end", STORED["end_to_end"], now | {"cpu": "another"})}
    assert rows["total_s"]["worse"] == "not judged: another processor" and rows["broken_caps"]["worse"] == "no"


def test_a_value_that_is_gone_is_worse_and_a_new_one_is_not():
    now = copy.deepcopy(STORED["fuzz"])
    del now["values"]["foreign_errors"]
    gone = {row["value"]: row["worse"] for row in compared("fuzz", STORED["fuzz"], now)}
    assert gone["foreign_errors"] == "YES: gone" and gone["peak_mb"] == "no"
    assert verdicts("fuzz", other=1.0)["other"] == "not judged"


def test_a_shortened_run_is_compared_with_one_shortened_alike_or_not_at_all():
    short = STORED["fuzz"] | {"quick": "--inputs 2000"}
    (row,) = compared("fuzz", STORED["fuzz"], short)
    assert row["worse"] == "not compared: shortened in another way"
    assert compared("fuzz", short, short)[-1]["worse"] == "no"


def test_a_run_with_other_settings_is_not_compared():
    longer = STORED["omniglot"] | {"extra": STORED["omniglot"]["extra"] | {"minutes": 60.0}}
    (row,) = compared("omniglot", STORED["omniglot"], longer)
    assert (row["value"], row["stored"], row["now"]) == ("minutes", "20.0", "60.0") and "another setting" in row[
        "worse"
    ]


def test_the_command_ends_with_one_where_something_is_worse(tmp_path, capsys):
    record = copy.deepcopy(STORED["search_macro"])
    good, bad = tmp_path / "search_macro.json", tmp_path / "any-name.json"
    write_json(good, record)
    record["values"]["mean_regret"] += 0.5
    write_json(bad, record)
    assert compare(good, RESULTS, list(BENCHES)) == 0
    assert compare(bad, RESULTS, list(BENCHES)) == 1
    assert "1 of 2 values that have a tolerance are worse" in capsys.readouterr().out
    write_json(bad, STORED["search_macro"] | {"quick": "--seeds 1"})
    assert compare(bad, RESULTS, list(BENCHES)) == 1  # nothing could be compared


def test_nothing_to_compare_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="name a result"):
        compare(tmp_path / "none", RESULTS, list(BENCHES))
    with pytest.raises(SystemExit, match="no result of"):
        compare(tmp_path, RESULTS, list(BENCHES))
