"""Timings that somebody took by hand: CSV or JSON, and what is wrong with them in one line."""

from __future__ import annotations

import pytest

from edgemeta.errors import BadProfile
from edgemeta.latency import by_hand, profile

A, B = "0.0.0.0.0.0.0.0.0.0", "1.1.0.0.0.0.0.0.0.0"


@pytest.fixture
def read(tiny, tmp_path):
    def made(text: str | bytes):
        path = tmp_path / "mine.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return by_hand.read(path, tiny, "my-board", precision="int8")

    return made


@pytest.mark.parametrize(
    "text",
    [
        f"arch,ms\n{A},0.1\n{B},0.2\n",
        f"\ufeffarch, latency_ms\r\ntiny-1x12x12:{A}, 0.1\r\n\r\n{B},0.2\r\n",
        f'{{"{A}": 0.1, "tiny-1x12x12:{B}": 0.2}}',
    ],
)
def test_both_forms_give_a_profile_that_survives_the_disk(read, tiny, tmp_path, text):
    made = read(text)
    assert [(str(net.arch), net.timing.median_ms) for net in made.nets] == [
        (f"tiny-1x12x12:{A}", 0.1),
        (f"tiny-1x12x12:{B}", 0.2),
    ]
    assert made.nets[0].ops == tiny.ops(made.nets[0].arch)
    assert made.device == "my-board" and made.precision == "int8" and not made.synthetic
    assert profile.load(profile.save(made, tmp_path / "p.json")) == made


def test_timings_of_one_network_are_merged(read):
    (net, _) = read(f"arch,ms\n{A},0.1\n{B},0.2\n{A},0.12\n").nets
    assert net.timing.median_ms == pytest.approx(0.11) and net.timing.n == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the heading ''; write lines of `arch,ms`"),
        ("arch,ms\n", "holds no timing of a network"),
        ("{}", "holds no timing of a network"),
        (f"arch,us\n{A},100\n", "under 'us' may not be milliseconds; convert them"),
        (f"{A},0.1\n", "has the heading"),
        (f"arch,ms\n{A}\n", "row 2 is"),
        (f"arch,ms\n{A},fast\n", "row 2 is"),
        (f"arch,ms\n{A},nan\n", "nan ms is no time"),
        (f"arch,ms\n{A},-1\n", "-1 ms is no time; leave out"),
        (f'{{"{A}": "0.1"}}', "'0.1' is not a number"),
        (f'{{"{A}": 0.1, "{A}": 0.2}}', f"names '{A}' twice; keep the right one"),
        (f'{{"{A}": 0.1', "is not whole JSON"),
        ("[1, 2]", "holds no object"),
        (f"arch,ms\n{A},0.1\n{A},0.4\n", "4.0-fold apart"),
        (f"arch,ms\n{A},0.1\n{B},0.1\n", "all 2 timings are 0.1 ms"),
        (f"arch,ms\n{A},0.0001\n{B},0.0002\n", "faster than any device; are these seconds"),
        (f"arch,ms\n{A},10000\n{B},20000\n", "slower than any device; are these microseconds"),
        ("arch,ms\n0.0.0,0.1\n", "it has 3 picks, expected 10; correct it, or name its space"),
        ("arch,ms\nedge-1x28x28:0.0,0.1\n", "is not of space tiny-1x12x12"),
        ("arch,ms\n9.0.0.0.0.0.0.0.0.0,0.1\n", "is past its 2 options"),
        ("arch,ms\nresnet18,0.1\n", "'resnet18' is no architecture"),
        (b"\xff\xfe\x00", "is not text"),
        ("[" * 100_000, "is not whole JSON"),
    ],
)
def test_wrong_timings_are_one_line(read, text, says):
    with pytest.raises(BadProfile) as caught:
        read(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_absent_and_a_huge_file(tiny, tmp_path, monkeypatch):
    with pytest.raises(BadProfile, match="cannot read .*No such file"):
        by_hand.read(tmp_path / "absent.csv", tiny, "x")
    monkeypatch.setattr(by_hand, "MAX_BYTES", 3)
    (tmp_path / "huge.csv").write_text("arch,ms\n")
    with pytest.raises(BadProfile, match="has more than"):
        by_hand.read(tmp_path / "huge.csv", tiny, "x")
