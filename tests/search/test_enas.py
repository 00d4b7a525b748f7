"""The ENAS controller: a policy that is one, moves to what scores, and leaves no trace elsewhere."""

import pytest
import torch

from edgemeta.search.enas import Enas
from edgemeta.types import Arch
from tests.search.landscapes import drive, hill, trial


def test_probabilities_of_a_slot_add_up_to_one_and_drawing_agrees_with_judging(tiny):
    searcher = Enas(tiny, seed=0)
    drive(searcher, 6, hill)
    controller = searcher._controller
    picks, logp = controller.draw(rng=torch.Generator().manual_seed(1))
    judged, entropy = controller.judge(torch.tensor([picks]))
    torch.testing.assert_close(judged[0], logp, atol=1e-5, rtol=1e-5)
    first = torch.tensor([[pick, *picks[1:]] for pick in tiny.options(0)])
    assert controller.judge(first)[0][:, 0].exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    sizes = torch.tensor([len(options) for _, options in tiny.slots])
    assert (entropy > 0).all() and (entropy <= sizes.log() + 1e-5).all()


def test_what_scores_better_becomes_likelier(tiny):
    searcher = Enas(tiny, seed=0, entropy=0.0)
    bad, good = (Arch(tiny.name, (pick,) * len(tiny.slots)) for pick in (0, 1))
    both = torch.tensor([bad.picks, good.picks])
    before = searcher._controller.judge(both)[0].sum(1).detach()
    for _ in range(5):
        searcher.tell(trial(bad, 0.2))
        searcher.tell(trial(good, 0.8))
    after = searcher._controller.judge(both)[0].sum(1).detach()
    assert after[1] > before[1] and after[1] - before[1] > after[0] - before[0]


def test_the_global_generator_is_left_alone(tiny):
    state = torch.get_rng_state()
    drive(Enas(tiny, seed=0), 4, hill)
    assert torch.equal(torch.get_rng_state(), state)


def test_its_memory_is_bounded(tiny):
    searcher = Enas(tiny, seed=0, memory=5, updates=1)
    for _ in range(12):
        searcher.ask()
        drive(searcher, 1, hill)
    assert len(searcher._memory) == 5 and len(searcher._asked) <= 5
