import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgemeta.errors import EdgemetaError
from edgemeta.report.story import Story, load, profile_facts, save
from edgemeta.types import Cost, Profile
from tests.report.story_example import example


def through_json(story: Story) -> Story:
    return Story.from_dict(json.loads(json.dumps(story.to_dict(), allow_nan=False)))


@pytest.mark.parametrize("story", [example(), Story()], ids=["full", "empty"])
def test_json_gives_the_same_story(story):
    assert through_json(story) == story


def test_numpy_numbers_missing_caps_and_broken_names_survive():
    story = replace(example(), budget=Cost(ram_kib=np.float32(64)), seed=np.int64(3), commands=("caf\udce9",))
    again = through_json(story)
    assert again.budget == Cost(math.inf, 64.0, math.inf)
    assert (again.seed, again.commands) == (3, ("caf?",))


def test_objects_are_refused_before_they_are_written():
    with pytest.raises(TypeError, match="object"):
        replace(example(), profile={"device": object()}).to_dict()


def test_a_damaged_file_is_one_line_that_names_the_field():
    damaged = example().to_dict()
    del damaged["winner"]["ops"][3]["kind"]
    with pytest.raises(EdgemetaError, match=r"winner\.ops\.3\.kind") as caught:
        Story.from_dict(damaged)
    assert "\n" not in str(caught.value)


def test_profile_facts_say_what_a_latency_needs():
    profile = Profile(
        "box", "onnxruntime", {"onnxruntime": "1.31"}, 1, "fp32", 1, "2026-01-02", "A CPU", "performance", True, {}, {}
    )
    facts = profile_facts(profile)
    assert facts["Device"] == "box (simulated)" and facts["Versions"] == "onnxruntime 1.31"
    assert {"CPU", "Frequency governor", "Threads", "Measured on"} <= set(facts)
    assert facts["Energy of the processor"] == "not measured" and "Source" not in facts
    assert facts["Cores allowed"] == "unknown" and facts["Operators timed"] == "none"


def test_profile_facts_tell_energy_source_and_cores():
    profile = Profile(
        "box", "published", {}, 1, "fp32", 1, "2026-01-02", "A CPU", "unknown", False, {"per_ms_mj": 12.5}, {},
        affinity=(0, 1, 2, 6), source="a paper",
    )  # fmt: skip
    facts = profile_facts(profile)
    assert facts["Energy of the processor"] == "12.5 mJ per ms" and facts["Source"] == "a paper"
    assert facts["Cores allowed"] == "0–2, 6"


def test_files_come_back_and_bad_ones_are_one_line(tmp_path):
    path = save(tmp_path / "story.json", example())
    assert load(path) == example()
    (tmp_path / "half.json").write_text(path.read_text()[:500])
    for name, words in (("half.json", "is not JSON"), ("none.json", "cannot read")):
        with pytest.raises(EdgemetaError, match=words):
            load(tmp_path / name)
