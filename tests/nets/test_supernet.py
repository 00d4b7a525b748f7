"""Every network of a space runs on slices of the shared tensors: the right ones, and gradients reach no others."""

from __future__ import annotations

from random import Random

import pytest
import torch
import torch.nn.functional as F

from edgemeta.contracts import Support
from edgemeta.errors import BadConfig
from edgemeta.learners import LEARNERS
from edgemeta.learners.train import adapt
from edgemeta.nets.build import build
from edgemeta.nets.matmul import BN_EPS
from edgemeta.nets.supernet import recalibrated, supernet
from edgemeta.space.presets import SPACES, darts, edge, fbnet, seq, tiny

SHARED = {"tiny": tiny, "edge": edge, "seq": seq}
MIDDLE = slice(1, 4)  # of five


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def doubled(params):
    return {name: value.double() for name, value in params.items()}


def by_hand(ops, params, x):
    """Features, and (mean, unbiased variance) of what each convolution gives, every batch normalised by its own."""
    values, seen = [x], {}
    for i, op in enumerate(ops):
        inputs = [values[j + 1] for j in op.inputs]
        if op.kind == "conv":
            y = F.conv2d(inputs[0], params[f"{i}.weight"], stride=op.steps, padding=op.pads, groups=op.groups)
            seen[i] = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=True)
            variance = y.var((0, 2, 3), unbiased=False)[:, None, None]
            y = (y - seen[i][0][:, None, None]) / (variance + BN_EPS).sqrt()
            y = y * params[f"{i}.gamma"][:, None, None] + params[f"{i}.beta"][:, None, None]
            values.append(y.relu() if op.act == "relu" else y)
        elif op.kind == "add":
            values.append(inputs[0] + inputs[1])
        elif op.kind == "maxpool":
            values.append(F.max_pool2d(inputs[0], op.window, op.steps))
        else:
            assert op.kind == "gap"
            values.append(inputs[0].mean((2, 3), keepdim=True))
    return values[-1].flatten(1), seen


@pytest.fixture
def shared(tiny):
    """The supernet of `tiny`, and float64 parameters of it, norms away from the identity."""
    net = supernet(tiny)
    params = doubled(net.init(rng=seeded(0)))
    for name, value in params.items():
        if not name.endswith(".weight"):
            value += 0.3 * torch.randn(value.shape, generator=seeded(1), dtype=torch.float64)
    return net, params


def mobile_and_separable(space):
    """Two layers of 4 channels, the second one inverted, then one separable layer of 8; kernels of 3 and of 5."""
    first = {"depth": 2, "width": 4, "kernel": 3, "kind": "mb3", "down": "pool"}
    return space.arch([first, {"depth": 1, "width": 8, "kernel": 5, "kind": "sep", "down": "stride"}])


def test_slices_are_those_cut_by_hand(shared):
    net, params = shared
    arch = mobile_and_separable(net.space)
    stem, mobile, sep = "stage1.layer1.conv.0", "stage1.layer2.mb3", "stage2.layer1.sep"
    kernels = {  # by position in the network: name, whole shape, what is taken
        0: (stem, (8, 1, 5, 5), params[f"{stem}.weight"][:4, :, MIDDLE, MIDDLE]),
        1: (f"{mobile}.2", (24, 8, 1, 1), params[f"{mobile}.2.weight"][:12, :4]),
        2: (f"{mobile}.1", (24, 1, 5, 5), params[f"{mobile}.1.weight"][:12, :, MIDDLE, MIDDLE]),
        3: (f"{mobile}.0", (8, 24, 1, 1), params[f"{mobile}.0.weight"][:4, :12]),
        6: (f"{sep}.1", (8, 1, 5, 5), params[f"{sep}.1.weight"][:4]),
        7: (f"{sep}.0", (8, 8, 1, 1), params[f"{sep}.0.weight"][:, :4]),
    }
    taken = net.params(params, arch)
    assert set(taken) == {f"{i}.{kind}" for i in kernels for kind in ("weight", "gamma", "beta")}
    for i, (name, whole, expected) in kernels.items():
        assert params[f"{name}.weight"].shape == whole
        assert torch.equal(taken[f"{i}.weight"], expected)
        for kind in ("gamma", "beta"):
            assert torch.equal(taken[f"{i}.{kind}"], params[f"{name}.{kind}"][: len(expected)])
    x = torch.rand((5, 1, 12, 12), generator=seeded(2), dtype=torch.float64)
    own = {f"{i}.weight": kernel for i, (_, _, kernel) in kernels.items()}
    own |= {
        f"{i}.{kind}": params[f"{kernels[i][0]}.{kind}"][: len(own[f"{i}.weight"])]
        for i in kernels
        for kind in ("gamma", "beta")
    }
    expected, _ = by_hand(net.space.ops(arch), own, x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(net.net(arch).body(taken, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("per_kind", [True, False])
@pytest.mark.parametrize("name", SHARED)
def test_what_a_network_takes_has_its_shapes(name, per_kind):
    space = SHARED[name]()
    net, rng = supernet(space, per_kind=per_kind), Random(0)
    params = net.init(rng=seeded(0))
    assert {f"{key}.weight": tuple(shape) for key, shape in net.shapes.items()} == {
        key: tuple(value.shape) for key, value in params.items() if key.endswith(".weight")
    }
    for _ in range(60):
        arch = space.sample(rng=rng)
        fresh = {key: value for key, value in build(space.ops(arch)).init(rng=seeded(0)).items() if key[:4] != "stat"}
        taken = net.params(params, arch)
        assert {key: value.shape for key, value in taken.items()} == {key: value.shape for key, value in fresh.items()}
        storages = {value.untyped_storage().data_ptr() for value in params.values()}
        assert {value.untyped_storage().data_ptr() for value in taken.values()} <= storages  # views, no copies


@pytest.mark.parametrize("kind", ["conv", "sep", "mb3", "mb6"])
def test_the_largest_network_of_a_kind_takes_whole_tensors(tiny, kind):
    net = supernet(tiny)
    params = net.init(rng=seeded(0))
    arch = tiny.arch([{"depth": 2, "width": 8, "kernel": 5, "kind": kind}] * 2)
    whole = {value.data_ptr(): value.shape for value in params.values()}
    taken = net.params(params, arch)
    assert all(whole.get(value.data_ptr()) == value.shape for value in taken.values())
    assert {name.split(".")[2] for name, _ in net.slices(arch).values()} == {"conv", kind}


def test_together_the_networks_need_all_of_it(tiny):
    net = supernet(tiny)
    params, used = net.init(rng=seeded(0)), set()
    for kind in ("conv", "sep", "mb3", "mb6"):
        arch = tiny.arch([{"depth": 2, "width": 8, "kernel": 5, "kind": kind}] * 2)
        used |= {name for name, _ in net.slices(arch).values()}
    assert used == set(params)


def test_gradients_reach_the_slices_and_nothing_else(shared):
    net, params = shared
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    x = torch.rand((6, 1, 12, 12), generator=seeded(3), dtype=torch.float64)
    for seed in range(4):
        arch = net.space.sample(rng=Random(seed))
        taken = net.params(leaves, arch)
        own = {name: value.detach().clone().requires_grad_() for name, value in taken.items()}
        along = torch.randn((6, net.net(arch).dim), generator=seeded(4), dtype=torch.float64)
        expected = torch.autograd.grad((net.net(arch).body(own, x) * along).sum(), list(own.values()))
        found = torch.autograd.grad(
            (net.net(arch).body(taken, x) * along).sum(), list(leaves.values()), allow_unused=True
        )
        found = dict(zip(leaves, found, strict=True))
        slices = net.slices(arch)
        assert {name for name, value in found.items() if value is not None} == {name for name, _ in slices.values()}
        for name, value in zip(own, expected, strict=True):
            of, part = slices[name]
            torch.testing.assert_close(found[of][part], value, rtol=1e-9, atol=1e-12)
            assert value.abs().max() > 0
            found[of][part] = 0
            assert not found[of].any()


@pytest.mark.parametrize("name", ["ridge", "anil", "fomaml", "metanet"])
def test_any_learner_runs_on_shared_weights(tiny, name):
    """And its loss has a gradient by them, through whatever it adapts."""
    net, arch = supernet(tiny), tiny.sample(rng=Random(2))
    leaves = {key: value.requires_grad_() for key, value in net.init(rng=seeded(0)).items()}
    learner = LEARNERS[name](net.net(arch))
    images = torch.rand((9, 1, 12, 12), generator=seeded(1))
    slow = recalibrated(learner.net, learner.init(rng=seeded(0)) | net.params(leaves, arch), [images])
    z = learner.net.body(slow, images) if learner.on_features else images
    support = Support(z[:6], torch.eye(3).repeat(2, 1))
    loss = F.cross_entropy(learner.predict(slow, adapt(learner, slow, support), z[6:]), torch.arange(3))
    reached = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    taken = {of for of, _ in net.slices(arch).values()}
    assert {key for key, value in zip(leaves, reached, strict=True) if value is not None} == taken


def test_what_is_no_kernel_and_no_norm_stays_as_it_is(shared):
    net, params = shared
    head = torch.tensor(2.0)
    taken = net.params(params | {"head.log_temperature": head}, net.space.sample(rng=Random(0)))
    assert taken["head.log_temperature"] is head


def test_kinds_may_share(tiny):
    """Counted from the last convolution of a layer, so that what mixes channels is shared with what mixes channels."""
    net = supernet(tiny, per_kind=False)
    second = {f"stage2.layer1.{left}": net.shapes[f"stage2.layer1.{left}"] for left in range(3)}
    assert second == {
        "stage2.layer1.0": (8, 48, 5, 5),  # 48: six times the channels that enter; 5 x 5: of the plain convolution
        "stage2.layer1.1": (48, 1, 5, 5),
        "stage2.layer1.2": (48, 8, 1, 1),
    }
    params = net.init(rng=seeded(0))
    kinds = ("conv", "sep", "mb3", "mb6")
    archs = [tiny.arch([{"width": 8, "kernel": 3}, {"width": 8, "kernel": 3, "kind": kind}]) for kind in kinds]
    last = [max(key for key in net.slices(arch) if key.endswith(".weight")) for arch in archs]
    ends = [net.params(params, arch)[key] for arch, key in zip(archs, last, strict=True)]
    whole = params["stage2.layer1.0.weight"]
    for end, (size, middle) in zip(
        ends, ((8, MIDDLE), (8, slice(2, 3)), (24, slice(2, 3)), (48, slice(2, 3))), strict=True
    ):
        assert torch.equal(end, whole[:, :size, middle, middle])


def test_the_generator_decides_the_weights(tiny):
    net = supernet(tiny)
    one, same, other = (net.init(rng=seeded(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stage1.layer1.conv.0.weight"], other["stage1.layer1.conv.0.weight"])
    assert {name for name in one if name.startswith("stat.")} == set()


@pytest.mark.parametrize("seed", range(4))
def test_recalibrated_statistics_are_those_of_the_images(shared, seed):
    """Of each batch its own, mean over batches; what statistics there were before tells nothing."""
    net, params = shared
    arch = net.space.sample(rng=Random(seed))
    own, ops = net.params(params, arch), net.space.ops(arch)
    batches = [torch.rand((n, 1, 12, 12), generator=seeded(n), dtype=torch.float64) + n for n in (4, 7, 5)]
    stale = {
        f"stat.{i}.{kind}": torch.full((op.out_shape[0],), 9.0).double()
        for i, op in enumerate(ops)
        if op.kind == "conv"
        for kind in ("mean", "var")
    }
    found = recalibrated(net.net(arch), own | stale, batches)
    assert set(found) == set(own) | set(stale) and all(found[name] is own[name] for name in own)
    seen = [by_hand(ops, own, x)[1] for x in batches]
    for i in seen[0]:
        for kind, rows in zip(("mean", "var"), zip(*(batch[i] for batch in seen), strict=True), strict=True):
            torch.testing.assert_close(found[f"stat.{i}.{kind}"], torch.stack(rows).mean(0), rtol=1e-7, atol=1e-9)


def test_one_batch_recalibrates_to_how_it_was_normalised(shared):
    """In inference mode the batch then comes out as in training mode, but for the unbiased variance."""
    net, params = shared
    arch = net.space.sample(rng=Random(1))
    x = torch.rand((40, 1, 12, 12), generator=seeded(0), dtype=torch.float64)
    own = net.params(params, arch)
    found = net.net(arch).body(recalibrated(net.net(arch), own, [x]), x)
    torch.testing.assert_close(found, net.net(arch).body(own, x), rtol=0.05, atol=0.05)


def test_statistics_of_nothing_are_refused(tiny):
    net, arch = supernet(tiny), tiny.sample(rng=Random(0))
    with pytest.raises(BadConfig, match="no batch .*; give one or more"):
        recalibrated(net.net(arch), net.params(net.init(rng=seeded(0)), arch), [])


@pytest.mark.parametrize("space", [darts(), fbnet(), SPACES["macro"]()], ids=str)
def test_a_space_without_stages_is_refused_in_a_line(space):
    with pytest.raises(BadConfig, match=f"{space.name} has no stages .*choose edge, seq or tiny") as refusal:
        supernet(space)
    assert "\n" not in str(refusal.value)
