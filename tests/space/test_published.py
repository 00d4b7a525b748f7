"""Published spaces against published numbers, and against wiring and shapes worked out by hand."""

from __future__ import annotations

from random import Random

import pytest

from edgemeta.errors import BadConfig
from edgemeta.space.blocks import FBNET_OPS, OFA_LAYERS, fbnet, ofa
from edgemeta.space.cells import CELL_EDGES, CELL_OPS, nb201
from edgemeta.space.presets import PUBLISHED
from edgemeta.types import Arch

NONE, SKIP, CONV1, CONV3, POOL = range(len(CELL_OPS))
FBNET_SKIP = len(FBNET_OPS)
FIRST_CELL = slice(1, 10)  # behind the stem: six edges and three additions


@pytest.fixture(params=PUBLISHED)
def space(request):
    return PUBLISHED[request.param]()


def macs(space, *picks) -> int:
    return sum(op.macs for op in space.ops(Arch(space.name, picks)))


def test_shapes_chain_and_inputs_come_first(space):
    rng = Random(0)
    for _ in range(30):
        ops = space.ops(space.sample(rng=rng))
        shapes = [op.out_shape for op in ops]
        shapes.append(ops[0].in_shape)  # so that -1 is the input
        for i, op in enumerate(ops):
            assert all(-1 <= j < i for j in op.inputs)
            assert shapes[op.inputs[0]] == op.in_shape and min(op.out_shape) >= 1
            if op.kind == "add":
                assert [shapes[j] for j in op.inputs] == [op.out_shape] * 2
            if op.groups > 1:
                assert op.in_shape[0] % op.groups == op.out_shape[0] % op.groups == 0
        assert ops[-1].out_shape[1:] == (1, 1)


def test_samples_are_points_of_the_space_and_seeds_decide(space):
    archs = [space.sample(rng=Random(seed)) for seed in range(20)]
    assert archs == [space.sample(rng=Random(seed)) for seed in range(20)] and len(set(archs)) > 15
    assert all(pick in space.options(i) for arch in archs for i, pick in enumerate(arch.picks))


def test_every_option_is_drawn(space):
    rng = Random(1)
    drawn = [space.sample(rng=rng).picks for _ in range(400)]
    assert all({row[i] for row in drawn} == set(space.options(i)) for i in range(len(space.slots)))


def test_sizes():
    assert nb201().size == 15_625
    assert fbnet().size == 9**22
    assert ofa().size == 25 * (3 * 9**OFA_LAYERS) ** 5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda arch: Arch("other", arch.picks),
        lambda arch: Arch(arch.space, arch.picks[:-1]),
        lambda arch: arch.swap(0, 99),
        lambda arch: arch.swap(0, -1),
    ],
    ids=["space", "short", "past", "negative"],
)
def test_what_is_no_point_is_refused_in_one_line(space, wrong):
    with pytest.raises(BadConfig, match="not of space|past its") as caught:
        space.ops(wrong(space.sample(rng=Random(0))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("pick", "millions"), [(CONV3, 220.12), (NONE, 7.78), (SKIP, 7.78), (POOL, 7.78)])
def test_cells_have_the_published_work(pick, millions):
    """The benchmark lists 220.12 and 7.78 M for these; its classifier of 100 classes has .006 M of them at most."""
    assert macs(nb201(), *[pick] * 6) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("edge", range(6))
def test_an_edge_reads_its_node(edge):
    """One convolution, all else skips: it reads what stands at the node where the edge begins."""
    ops = nb201().ops(Arch("nb201", (SKIP,) * edge + (CONV3,) + (SKIP,) * (5 - edge)))[FIRST_CELL]
    at = next(i for i, op in enumerate(ops) if op.kind == "conv")
    source = ops[at].inputs[0] - 1  # within the cell
    node = {0: -1, 1: 0, 2: 3}[CELL_EDGES[edge][0]]  # entry; the only edge into node 1; the sum of two
    assert source == node
    behind = [i for i, op in enumerate(ops) if at in [j - 1 for j in op.inputs] and op.kind == "add"]
    target = CELL_EDGES[edge][1]
    assert (target == 1) == (behind == []) and all(i <= {1: 0, 2: 3, 3: 8}[target] for i in behind)


def test_cells_keep_all_edges_whatever_they_hold():
    """Wiring never changes: what a runtime prunes is the device's affair."""
    wiring = {tuple(op.inputs for op in nb201().ops(Arch("nb201", (pick,) * 6))) for pick in range(5)}
    assert len(wiring) == 1
    kinds = [op.kind for op in nb201().ops(Arch("nb201", (NONE, SKIP, CONV1, CONV3, POOL, NONE)))[FIRST_CELL]]
    assert sorted(kinds) == sorted(["zero", "zero", "skip", "conv", "conv", "avgpool", "add", "add", "add"])


def test_a_cell_network_halves_twice_and_doubles_twice():
    ops = nb201().ops(Arch("nb201", (CONV3,) * 6))
    stages = list(dict.fromkeys(op.out_shape for op in ops if op.kind == "add"))
    assert stages == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert ops[-1].kind == "gap" and ops[-1].out_shape == (64, 1, 1)
    assert [op.in_shape for op in ops if op.kind == "avgpool"] == [(16, 32, 32), (32, 16, 16)]  # of the shortcuts


def test_fbnet_skips_cost_a_convolution_only_where_the_shape_changes():
    ops = fbnet().ops(Arch("fbnet", (FBNET_SKIP,) * 22))
    widths = [op.out_shape[0] for op in ops]
    # the first block keeps 16 channels: nothing; one convolution opens each later stage; stem, last layer, pool
    assert widths == [16, 24, 32, 64, 112, 184, 352, 1504, 1504]
    assert [op.out_shape[1] for op in ops] == [32, 32, 16, 8, 8, 4, 4, 4, 1]
    assert {op.kind for op in ops} == {"conv", "gap"}


def test_fbnet_blocks_by_hand():
    names = list(FBNET_OPS)

    def first(name):
        """The first block: 16 channels in and out, unit stride."""
        return fbnet().ops(Arch("fbnet", (names.index(name), *[FBNET_SKIP] * 21)))[1:]

    expanded = first("k5_e6")[:4]
    assert [op.kind for op in expanded] == ["conv", "conv", "conv", "add"]
    assert [op.out_shape[0] for op in expanded] == [96, 96, 16, 16]
    assert [op.groups for op in expanded[:3]] == [1, 96, 1] and expanded[1].kernel == 5
    assert expanded[3].inputs == (3, 0)  # the stem
    grouped = first("k3_e1_g2")[:5]
    assert [op.kind for op in grouped] == ["conv", "shuffle", "conv", "conv", "add"]
    assert [op.groups for op in grouped if op.kind == "conv"] == [2, 16, 2]


def test_fbnet_adds_only_equal_shapes():
    """22 blocks, of which 6 change the shape: the first of each stage but the first."""
    ops = fbnet().ops(Arch("fbnet", (0,) * 22))
    assert sum(op.kind == "add" for op in ops) == 22 - 6


def _ofa(size: int = 0, **each: int) -> tuple[int, ...]:
    """Picks with the same `depth`, `kernel` and `expansion` everywhere."""
    found = [size]
    for name, _ in ofa().slots[1:]:
        found.append(each.get(name.rpartition(".")[2], 0))
    return tuple(found)


def test_ofa_counts_only_layers_within_the_depth():
    shallow = Arch("ofa", _ofa())
    names = [name for name, _ in ofa().slots]
    past = [i for i, name in enumerate(names) if "layer3" in name or "layer4" in name]
    assert len(past) == 20
    deeper = shallow
    for slot in past:
        deeper = deeper.swap(slot, 2)
    assert ofa().ops(deeper) == ofa().ops(shallow)
    within = names.index("stage1.layer2.kernel")
    assert ofa().ops(shallow.swap(within, 2)) != ofa().ops(shallow)


@pytest.mark.parametrize("name", ["depth", "kernel", "expansion"])
def test_ofa_grows_with_every_setting(name):
    works = [macs(ofa(), *_ofa(**{name: pick})) for pick in range(3)]
    assert works == sorted(set(works))


def test_ofa_sizes_are_pixels_and_end_at_a_32nd():
    for pick, pixels in ((0, 128), (24, 224)):
        ops = ofa().ops(Arch("ofa", _ofa(pick)))
        assert ops[0].in_shape == (3, pixels, pixels)
        assert ops[-1].in_shape == (960, pixels // 32, pixels // 32)


def test_ofa_squeezes_in_three_stages_of_five():
    ops = ofa().ops(Arch("ofa", _ofa()))
    scaled = [op for op in ops if op.kind == "scale"]
    assert len(scaled) == 3 * 2  # two layers each
    for op in scaled:
        map_at, weight_at = op.inputs
        assert ops[map_at].out_shape == op.out_shape and ops[weight_at].out_shape == (op.out_shape[0], 1, 1)
