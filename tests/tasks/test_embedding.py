"""The numbers that describe a task: known tasks give known numbers, and nothing depends on names or order."""

import pytest
import torch

from edgemeta.contracts import Support
from edgemeta.errors import BadData
from edgemeta.tasks.embedding import FIELDS, embed


def support_of(way: int, shot: int, shape=(1, 9, 12), seed: int = 0) -> Support:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.rand(way, *shape, generator=rng)
    x = centres.repeat_interleave(shot, 0) + 0.3 * torch.rand(way * shot, *shape, generator=rng)
    return Support(x, torch.eye(way).repeat_interleave(shot, 0))


def named(support: Support) -> dict[str, float]:
    return dict(zip(FIELDS, embed(support).tolist(), strict=True))


def test_order_of_examples_and_classes_and_padding_do_not_matter():
    support, rng = support_of(4, 3), torch.Generator().manual_seed(1)
    rows, columns = torch.randperm(12, generator=rng), torch.randperm(4, generator=rng)
    shuffled = Support(support.x[rows], support.onehot[rows][:, columns])
    padded = Support(
        torch.cat([shuffled.x, torch.full((2, 1, 9, 12), 7.0)]), torch.cat([shuffled.onehot, torch.zeros(2, 4)])
    )
    wider = Support(padded.x, torch.nn.functional.pad(padded.onehot, (1, 2)))  # classes without examples
    for other in (shuffled, padded, wider):
        torch.testing.assert_close(embed(other), embed(support), rtol=1e-4, atol=1e-5)


def test_sizes_are_read_off():
    x = torch.rand(7, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    found = named(Support(x, torch.eye(2)[[0, 0, 0, 0, 0, 0, 1]]))
    assert found["ways"] == 1 and found["channels"] == 2 and found["height"] == 4 and found["width"] == 3
    assert found["shots"] == pytest.approx(1.8074, abs=1e-3)  # log2(7 / 2)
    assert found["imbalance"] == pytest.approx(2.5 / 3.5, abs=1e-5)


def test_a_negative_differs_in_level_and_ground_only():
    x, onehot = support_of(3, 2)
    plain, negative = named(Support(x, onehot)), named(Support(1 - x, onehot))
    for name, value in negative.items():
        wanted = 1 - plain[name] if name in ("level", "ground") else plain[name]
        assert value == pytest.approx(wanted, abs=1e-4), name


def test_a_bar_is_found_where_it_is():
    x = torch.zeros(1, 1, 8, 8)
    x[..., 6, 2:6] = 1.0  # row 6, columns 2 to 5
    found = named(Support(x, torch.ones(1, 1)))
    assert found["row"] == pytest.approx(6.5 / 8 - 0.5, abs=1e-3) and found["column"] == pytest.approx(0, abs=1e-3)
    assert found["tall"] == pytest.approx(0, abs=1e-2)
    assert found["wide"] == pytest.approx((5 / 4) ** 0.5 / 8, abs=1e-3)
    assert found["ink"] == pytest.approx(4 / 64, abs=1e-5) and found["ground"] == 0.0
    assert found["across_rows"] > found["across_columns"]


def test_scatter_is_that_of_the_classes():
    """Two classes of flat images, 0 and 2 against 3 and 5: class means 1 and 4, one within, 1.5 between."""
    x = torch.tensor([0.0, 2.0, 3.0, 5.0])[:, None, None, None].expand(4, 1, 8, 8)
    found = named(Support(x, torch.eye(2).repeat_interleave(2, 0)))
    contrast = 3.25**0.5
    assert found["contrast"] == pytest.approx(contrast, abs=1e-3)
    assert found["within"] == pytest.approx(1 / contrast, abs=1e-3)
    assert found["between"] == pytest.approx(1.5 / contrast, abs=1e-3)
    assert found["apart"] == pytest.approx(2.25 / 3.25, abs=1e-3)
    assert found["nearest"] == pytest.approx(1, abs=1e-3) and found["rank"] == pytest.approx(1, abs=1e-3)


def test_nearest_and_rank_know_look_alikes():
    """Three classes at 0, 1 and 10 along one direction, against three equally far apart."""
    line = torch.tensor([0.0, 1.0, 10.0])[:, None, None, None].expand(3, 1, 8, 8)
    corners = torch.zeros(3, 1, 8, 8)
    corners[0, :, :4, :4] = corners[1, :, :4, 4:] = corners[2, :, 4:, :4] = 1.0
    alike, apart = named(Support(line, torch.eye(3))), named(Support(corners, torch.eye(3)))
    assert alike["nearest"] == pytest.approx((1 + 1 + 9) / (1 + 10 + 9) * 1, abs=1e-3)
    assert alike["rank"] == pytest.approx(0.5, abs=1e-3)
    assert apart["nearest"] == pytest.approx(1, abs=1e-3) and apart["rank"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (1, 28, 28), (2, 3, 40)])
@pytest.mark.parametrize(("way", "shot"), [(1, 1), (5, 1), (2, 4)])
def test_every_size_gives_finite_numbers_and_slopes(shape, way, shot):
    support = support_of(way, shot, shape)
    x = support.x.requires_grad_()
    (slope,) = torch.autograd.grad(embed(support).sum(), x)
    assert embed(support).shape == (len(FIELDS),) and slope.isfinite().all()
    assert slope.abs().max() > 0 or shape == (1, 1, 1)


def test_constant_images_are_described():
    found = named(Support(torch.full((4, 1, 8, 8), 0.5), torch.eye(4)))
    assert found["level"] == 0.5 and found["contrast"] < 1e-3 and found["apart"] == pytest.approx(0, abs=1e-3)


def test_slopes_are_right():
    support = Support(support_of(3, 2, (1, 5, 6)).x.double(), torch.eye(3).double().repeat_interleave(2, 0))
    assert torch.autograd.gradcheck(lambda x: embed(Support(x, support.onehot)), support.x.requires_grad_())


@pytest.mark.parametrize(
    ("x", "onehot", "said"),
    [
        (torch.rand(4, 12), torch.eye(4), r"not by \(4, 12\); pass the images"),
        (torch.rand(2, 1, 8, 8), torch.zeros(2, 3), "none of 2 support rows has a label"),
        (torch.full((2, 1, 8, 8), float("nan")), torch.eye(2), "2 support images hold NaN"),
    ],
)
def test_what_cannot_be_described_is_refused(x, onehot, said):
    with pytest.raises(BadData, match=said):
        embed(Support(x, onehot))
