import pytest

from edgemeta.report import drawing
from edgemeta.space.presets import LANDMARKS, edge


@pytest.mark.parametrize("name", LANDMARKS)
@pytest.mark.parametrize("width", [940, 330])
def test_every_operator_has_a_box_and_every_residual_an_arc(name, width):
    space = edge()
    ops = space.ops(LANDMARKS[name](space))
    drawn = drawing.architecture(ops, width=width)
    assert drawn.count('class="box"') == len(ops)
    assert drawn.count('class="skip"') == sum(op.kind == "add" for op in ops)


@pytest.mark.parametrize("name", LANDMARKS)
def test_panels_hold_all_operators_in_order(name):
    space = edge((3, 84, 84))
    ops = space.ops(LANDMARKS[name](space))
    groups = drawing.panels(ops)
    assert tuple(op for group in groups for op in group.ops) == ops
    assert all(ops[group.first] is group.ops[0] for group in groups)
    assert groups[0].title == "84×84" and [op.kind for op in groups[-1].ops] != ["gap"]


def test_labels_say_kind_kernel_stride_and_shape():
    space = edge()
    labels = [drawing.label(op) for op in space.ops(LANDMARKS["mobile"](space))]
    assert labels[0] == "conv 3×3 /2 + ReLU → 16×14×14"
    assert any(words.startswith("depthwise 3×3") for words in labels)
    assert any(words.startswith("residual add") for words in labels)


def test_count_shortens():
    assert [drawing.count(n) for n in (999, 1500, 2_340_000, 4e9)] == ["999", "1.5 k", "2.34 M", "4 G"]
