import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemeta.contracts import Latency
from edgemeta.report import page
from edgemeta.report.story import BundleFile, DataFacts, Story
from edgemeta.space.presets import LANDMARKS, edge
from edgemeta.types import Cost, Timing
from tests.report.story_example import example

SECTIONS = (
    "summary",
    "front",
    "latencies",
    "layers",
    "agreement",
    "profile",
    "shots",
    "architecture",
    "learners",
    "run",
)
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&\udce9{{ 7*7 }}"
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags nest, and gathers ids, attributes and words."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.words += data


def hostile() -> Story:
    story = example(count=12)
    return replace(
        story,
        device=HOSTILE,
        winner=replace(story.winner, learner=HOSTILE),
        scores=tuple(replace(s, learner=HOSTILE, test_set=HOSTILE) for s in story.scores),
        checks=tuple(replace(c, name=HOSTILE, group=HOSTILE, shares={HOSTILE: 1.0}) for c in story.checks),
        layers=((HOSTILE, 0.1),),
        trials=tuple(replace(t, searcher=HOSTILE) for t in story.trials),
        data=(DataFacts(HOSTILE, 3, {HOSTILE: 2}, notes=(HOSTILE,)),),
        versions={HOSTILE: HOSTILE},
        commands=(HOSTILE,),
        stages=((HOSTILE, 1.0),),
        profile={HOSTILE: HOSTILE},
        doubts=(HOSTILE, HOSTILE),
        files=(BundleFile(HOSTILE, 1, HOSTILE),),
    )


STORIES = {"full": example, "empty": Story, "hostile": hostile}


@pytest.mark.parametrize("make", STORIES.values(), ids=STORIES)
def test_page_is_well_formed_and_has_every_section(make):
    outline = Outline(page.render(make()))
    assert outline.open == []
    assert [name for name in outline.ids if name in SECTIONS] == list(SECTIONS)
    assert len(set(outline.ids)) == len(outline.ids)


@pytest.mark.parametrize("make", STORIES.values(), ids=STORIES)
def test_page_loads_nothing(make):
    html = page.render(make())
    assert all(link.startswith("#") or link == "data:," for link in Outline(html).links)
    assert not re.search(r"https?://|url\(|@import", html)


def test_hostile_names_stay_words():
    outline = Outline(page.render(hostile()))
    assert "img" not in outline.tags and not outline.handlers and outline.tags.count("script") == 1
    assert "<script>alert('x')</script>" in outline.words and "{{ 7*7 }}" in outline.words


def test_first_screen_answers():
    story = example()
    words = Outline(page.render(story)).words
    first = words[: words.index("Accuracy against latency")]
    shown = (story.device, str(story.winner.arch), "5-shot accuracy", "cap 0.35 ms", "predicted", "measured 400 times")
    assert all(part in first for part in (*shown, "cap 256 KiB", "cap 512 KiB", "Every cap holds", "± 0.5 %"))


def test_energy_is_shown_where_it_was_measured_and_never_guessed():
    story = example()
    words = Outline(page.render(story)).words
    assert "Energynot measured" in words and "[mJ]" not in words
    known = replace(story, winner=replace(story.winner, energy_mj=2.5), budget=replace(story.budget, energy_mj=2.0))
    known = replace(known, trials=tuple(replace(t, cost=replace(t.cost, energy_mj=1.25)) for t in story.trials))
    words = Outline(page.render(known)).words
    assert "energy [mJ]" in words and "1.25" in words
    assert "2.5 mJ" in words and "cap 2 mJ" in words and "Over the cap: Energy" in words
    assert "energy 2 mJ" in words  # the budget


def test_a_broken_cap_is_named():
    story = example()
    broken = replace(story, budget=Cost(0.9 * story.winner.measured.median_ms, 1.0, 512.0))
    assert "Over the cap: Latency and RAM" in Outline(page.render(broken)).words


def test_without_caps_nothing_is_ticked():
    html = page.render(replace(example(), budget=Cost()))
    assert "verdict neutral" in html and "– No caps were set" in Outline(html).words and "✓" not in html


@pytest.mark.parametrize(
    "part", ["winner", "trials", "layers", "checks", "scores", "profile", "stages", "files", "data"]
)
def test_a_missing_part_becomes_a_sentence(part):
    full, without = (
        page.render(s).count('class="absent"')
        for s in (example(), replace(example(), **{part: getattr(Story(), part)}))
    )
    assert full == 0 and without >= 1


def test_a_winner_that_was_not_measured_says_so():
    story = example()
    bare = replace(story, winner=replace(story.winner, measured=None, ram_kib=None, flash_kib=None), scores=())
    words = Outline(page.render(bare)).words
    assert "not measured" in words and "unknown" in words and "per image" in words


def test_agreement_tells_shares_and_what_the_fit_has_seen():
    story = example()
    words = Outline(page.render(story)).words
    assert "inside their interval" in words and "used in the fityesno" in "".join(words.split("\n"))
    assert "were used to fit the prediction" in words and "By kind of operator" in words
    later = tuple(c for c in story.checks if c.group == "search")
    words = Outline(page.render(replace(story, checks=later))).words
    assert "were used to fit" not in words and "bundle measured after the search" in words


def test_doubts_are_told_twice_and_their_absence_never():
    story = replace(example(), doubts=("a busy machine", "whole milliseconds"))
    words = Outline(page.render(story)).words
    first = words[: words.index("Accuracy against latency")]
    assert "in doubt: a busy machine, and 1 more" in first and "whole milliseconds" in words[len(first) :]
    assert "doubt" not in Outline(page.render(replace(story, doubts=()))).words


def test_a_device_seen_ten_times_has_a_page_without_operators_or_drift():
    story = example()
    few = tuple(replace(c, shares={}) for c in story.checks[:10])
    outline = Outline(page.render(replace(story, checks=few, layers=(), drift=(), doubts=())))
    assert outline.open == [] and "used in the fit" in outline.words
    assert "By kind of operator" not in outline.words and "reference network" not in outline.words
    assert "whole networks alone has none" in outline.words


def test_a_crowd_is_thinned_and_the_page_says_so():
    story = example()
    crowd = tuple(replace(c, measured_ms=c.measured_ms + at / 1e4) for at in range(30) for c in story.checks[:20])
    words = Outline(page.render(replace(story, checks=crowd))).words
    assert "300 of the 600 are drawn" in words


def test_learners_table_says_non_transductive():
    html = page.render(example())
    assert html.count("<td>non-transductive</td>") == 4 and "5-way 1-shot" in html and "5-way 5-shot" in html


def test_write_leaves_one_whole_file(tmp_path):
    path = page.write(tmp_path / "new" / "report.html", example())
    assert path.read_text().rstrip().endswith("</html>") and [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("make", STORIES.values(), ids=STORIES)
def test_browser_shows_it_without_a_complaint(chromium, tmp_path, make, width, dark):
    path = page.write(tmp_path / "report.html", make())
    chromium.open(path, width=width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") <= width
    background = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 18, 21)" if dark else "rgb(244, 245, 247)")


# Words that stand outside their box, and words of one drawing that lie on each other, at the given width.
SPILLED = """[...document.querySelectorAll('svg')].filter(s => s.clientWidth).flatMap(s => {
  const frame = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => {
    const box = t.getBoundingClientRect(), own = t.closest('g')?.querySelector('.box')?.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > (own ?? frame).right + 1;
  }).map(t => t.textContent);
})"""
OVERLAPPING = """[...document.querySelectorAll('svg')].filter(s => s.clientWidth).flatMap(s => {
  const all = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return all.flatMap(([a, p], i) => all.slice(i + 1)
    .filter(([, q]) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3)
    .map(([b]) => a + ' | ' + b));
})"""


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("width", [1200, 800, 390])
def test_no_label_is_clipped_or_hidden_by_another(chromium, tmp_path, width, seed):
    story = example(seed)
    space = edge((3, 84, 84))
    arch = LANDMARKS["mobile"](space)
    large = replace(story, winner=replace(story.winner, arch=arch, ops=space.ops(arch)))
    for name, told in (("small", story), ("large", large)):
        chromium.open(page.write(tmp_path / f"{name}.html", told), width=width)
        assert chromium.value(SPILLED) == []
        assert chromium.value(OVERLAPPING) == []


ODD = st.sampled_from([0.0, -1.0, 1e-12, 0.3, 5e3, 1e12, math.nan, math.inf, -math.inf])


@given(
    numbers=st.lists(ODD, min_size=9, max_size=9), size=st.integers(0, 3), status=st.sampled_from(["ok", "infeasible"])
)
def test_no_number_breaks_the_page(numbers, size, status):
    a, b, c, d, e, f, g, h, i = numbers
    story = example(count=3)
    odd = replace(
        story,
        budget=Cost(a, b, c),
        winner=replace(story.winner, predicted=Latency(d, e, f), measured=Timing(g, h, 1), ram_kib=i),
        trials=tuple(replace(t, cost=Cost(d, e, f), score=g, score_ci=h, status=status) for t in story.trials[:size]),
        layers=(("one", a), ("two", b)),
        checks=tuple(
            replace(k, predicted=Latency(a, b, c), measured_ms=d, shares={"add": e}) for k in story.checks[:size]
        ),
        drift=((a, b), (c, d), (e, f), (g, h))[: size + 1],
        scores=tuple(replace(s, accuracy=e, ci=f) for s in story.scores[:size]),
    )
    html = page.render(Story.from_dict(odd.to_dict()))
    assert not re.search(r'(?:x|y|cx|cy|x1|x2|y1|y2|points|d)="[^"]*(?:nan|inf)', html)
