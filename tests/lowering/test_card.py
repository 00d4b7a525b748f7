"""The model card says what the manifest says, and nothing that it does not."""

from __future__ import annotations

import pytest

from edgemeta.lowering import bundle, card
from edgemeta.types import Cost

TEST = {"data": "glyphs", "split": "test", "way": 5, "shot": 1, "accuracy": 0.912, "ci95": 0.004}
FACTS = {"space": "tiny-1x12x12", "picks": [0, 1], "data": "glyphs", "episodes": 150, "seed": 3, "device": "pi"}


@pytest.fixture(scope="module")
def written(anil, tmp_path_factory):
    target = tmp_path_factory.mktemp("card") / "bundle"
    costs = {"predicted": Cost(1.25, 20.0, 30.0), "cap": Cost(latency_ms=2.0)}
    return bundle.write(target, slow=anil.slow, learner=anil.learner, facts=FACTS | {"tests": [TEST]}, **costs)


def test_it_tells_costs_accuracy_and_limits(written):
    found = bundle.read(written)
    text = card.text(found)
    for told in (
        "anil on pi", "tiny-1x12x12:0.1", "150 episodes, seed 3", "| predicted | 1.25 ms |", "| cap | 2 ms |",
        "| glyphs (test) | 5 classes, 1 example(s) each | 91.2 ± 0.4 % |", "not yet: `edgemeta bench`",
    ):  # fmt: skip
        assert told in text
    assert f"{found.costs.graph_kib:.1f} KiB" in text and "images of 1 x 12 x 12" in text
    assert "cap | 20" not in text  # there is no cap on memory


def test_it_tells_what_was_measured_and_what_was_not_tested(written):
    found = bundle.update_facts(written, {"tests": []}, measured=bundle.measure(written))
    text = card.text(found)
    assert "Not tested." in text and "image to features" in text and "onnxruntime" in text and "not yet" not in text


def test_facts_that_are_not_there_or_odd_break_nothing(written):
    found = bundle.read(written).model_copy(update={"facts": {"tests": "none", "picks": 3}})
    assert "a device" in card.text(found) and "Not tested." in card.text(found)
