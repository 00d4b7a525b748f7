"""The controller of ENAS: an LSTM that picks one slot after another, taught by the scores of what it picked."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from edgemeta.learners.adam import Adam
from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial

TANH = 2.5  # bound of the logits: a policy that is certain of a slot explores it no more (Bello 2017, arXiv:1611.09940)
CLIP = 0.2  # of the importance weights (Schulman 2017, arXiv:1707.06347)
BOUND = 3.0  # of an advantage, in typical distances from the baseline: a zero must not drown all differences


class Draw(NamedTuple):
    """A told architecture: what was picked, how likely each pick was then, and the reward."""

    picks: tuple[int, ...]
    logp: Tensor  # (slots,)
    reward: float


class Enas:
    """REINFORCE over slots (Pham 2018, arXiv:1802.03268, section 2.2; Zoph 2017, arXiv:1611.01578, section 3.2).

    A moving average is the baseline and the entropy has a bonus. The weights that ENAS shares are another part: here
    the controller learns from told scores, of networks trained alone or in a supernet. Departures, for tens of trials
    in place of thousands: each tell takes `updates` Adam steps over the last `memory` trials, weighted by the clipped
    ratio of what the policy gives a pick now and gave it then, slot by slot; advantages are in units of their moving
    mean distance; a network of the memory is drawn again where `tries` allow. A network that nobody asked for
    counts as drawn when it is told. What was infeasible or failed has a reward of zero: it is not to be had.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        hidden: int = 32,
        lr: float = 0.03,
        entropy: float = 0.02,
        decay: float = 0.9,
        updates: int = 2,
        memory: int = 32,
        tries: int = 10,
    ):
        self._space = space
        self._rng = torch.Generator().manual_seed(seed)
        self._controller = _Controller([len(options) for _, options in space.slots], hidden, rng=self._rng)
        self._lr, self._entropy, self._decay = lr, entropy, decay
        self._updates, self._tries = updates, tries
        self._asked: dict[tuple[int, ...], Tensor] = {}  # picks -> log-probabilities, the oldest first
        self._memory: deque[Draw] = deque(maxlen=memory)
        self._baseline: float | None = None
        self._distance = 0.0

    def ask(self) -> Arch:
        known = {draw.picks for draw in self._memory}
        for _ in range(self._tries):
            picks, logp = self._controller.draw(rng=self._rng)
            if picks not in known:
                break
        self._asked[picks] = logp
        while len(self._asked) > (self._memory.maxlen or 0):
            del self._asked[next(iter(self._asked))]
        return Arch(self._space.name, picks)

    def tell(self, trial: Trial) -> None:
        picks, reward = trial.arch.picks, trial.score or 0.0
        logp = self._asked.pop(picks, None)
        if logp is None:
            with torch.no_grad():
                logp = self._controller.judge(torch.tensor([picks]))[0][0]
        self._memory.append(Draw(picks, logp, reward))
        self._weigh(reward)
        for _ in range(self._updates):
            self._update()

    def _weigh(self, reward: float) -> None:
        """Move the baseline, and the typical distance from it."""
        if self._baseline is None:
            self._baseline = reward
        away = abs(reward - self._baseline)
        self._distance = self._decay * self._distance + (1 - self._decay) * away if self._distance else away
        self._baseline = self._decay * self._baseline + (1 - self._decay) * reward

    def _update(self) -> None:
        """One step on the clipped objective (Schulman 2017, eq. 7), with the entropy bonus."""
        draws = list(self._memory)
        logp, entropy = self._controller.judge(torch.tensor([draw.picks for draw in draws]))
        ratio = (logp - torch.stack([draw.logp for draw in draws])).exp()
        away = torch.tensor([draw.reward for draw in draws]) - (self._baseline or 0.0)
        gain = (away / max(self._distance, 1e-9)).clamp(-BOUND, BOUND)[:, None]
        reached = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain)
        self._controller.descend(-reached.mean() - self._entropy * entropy.mean(), self._lr)


class _Controller:
    """One LSTM layer; every option of every slot has an embedding, every slot a linear head."""

    def __init__(self, sizes: list[int], hidden: int, *, rng: torch.Generator):
        self._slots = len(sizes)
        lstm = torch.nn.LSTM(hidden, hidden, batch_first=True, device="meta")  # draws nothing from the global generator
        self._lstm = lstm.to_empty(device="cpu")
        self._embedding = torch.empty(1 + sum(sizes), hidden)  # the start, then the options slot by slot
        self._heads = torch.empty(len(sizes), hidden, max(sizes))
        self._first = torch.tensor([1, *sizes]).cumsum(0)[:-1]  # (slots,) rows of the first options
        self._beyond = torch.arange(max(sizes)) >= torch.tensor(sizes)[:, None]  # (slots, options) that are not there
        self.params = [self._embedding, self._heads, *self._lstm.parameters()]
        for part in self.params:
            part.data.uniform_(-0.1, 0.1, generator=rng)
            part.requires_grad_()
        self._adam = Adam(self.params, 0.0)

    @torch.no_grad()
    def draw(self, *, rng: torch.Generator) -> tuple[tuple[int, ...], Tensor]:
        """An architecture and the log-probability of each of its picks (slots,)."""
        picks: list[int] = []
        parts: list[Tensor] = []
        row, state = 0, None
        for slot in range(self._slots):
            out, state = self._lstm(self._embedding[row][None, None], state)
            logp = self._logp(out, slice(slot, slot + 1))[0, 0]
            picks.append(int(torch.multinomial(logp.exp(), 1, generator=rng)))
            parts.append(logp[picks[-1]])
            row = int(self._first[slot]) + picks[-1]
        return tuple(picks), torch.stack(parts)

    def judge(self, picks: Tensor) -> tuple[Tensor, Tensor]:
        """picks (n, slots) -> log-probabilities of them (n, slots) and entropies of their slots (n, slots)."""
        rows = torch.cat([torch.zeros_like(picks[:, :1]), (picks + self._first)[:, :-1]], 1)
        out, _ = self._lstm(self._embedding[rows])
        logp = self._logp(out, slice(None))
        return logp.gather(2, picks[..., None])[..., 0], -(logp.exp() * logp).sum(2)

    def descend(self, loss: Tensor, lr: float) -> None:
        self._adam.lr = lr
        self._adam.step(torch.autograd.grad(loss, self.params))

    def _logp(self, out: Tensor, slots: slice) -> Tensor:
        """LSTM outputs (n, slots, hidden) -> log-probabilities (n, slots, options)."""
        logits = TANH * torch.tanh(torch.einsum("nsh,sho->nso", out, self._heads[slots]))
        return torch.log_softmax(logits.masked_fill(self._beyond[slots], -1e4), 2)
