"""MetaQNN: a table of Q-values over one choice after another, learned from replayed trials."""

from __future__ import annotations

from itertools import accumulate
from random import Random

from edgemeta.space.space import Space
from edgemeta.types import Arch, Trial

# (epsilon, unique networks trained at it): the published schedule, of 2700 networks.
SCHEDULE = ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), *((tenths / 10, 150) for tenths in (6, 5, 4, 3, 2, 1)))
_ENDS = tuple(accumulate(count for _, count in SCHEDULE))
State = tuple[int, int]  # (slot, pick of the slot before; -1 before the first)


class MetaQNN:
    """Q-learning over layer choices (Baker 2017, arXiv:1611.02167); the slots of a space, in order, are its layers.

    A state is what the paper lets it be, depth and the choice before, so that tens of trials can fill the table.
    Rewards come at the end alone and nothing is discounted. `trials` trained networks stretch or shrink the paper's
    schedule of epsilon, after which it stays at its last value; a network proposed twice is replayed, not trained
    again. Departures: a `rate` of .3, not .01, and 30 replays a trial, not 100, because the schedule is that short.

    What cannot be built for the caps, or not be trained, is told with a reward of zero: the network is a bad
    one like any other, and a policy that heard nothing of it would go on proposing it.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        trials: int = 40,
        rate: float = 0.3,
        start: float = 0.5,
        replays: int = 30,
        tries: int = 20,
    ):
        self._space = space
        self._rng = Random(seed)
        self._trials, self._rate, self._start = trials, rate, start
        self._replays, self._tries = replays, tries
        self._values: dict[State, list[float]] = {}
        self._rewards: dict[Arch, float] = {}  # the replay memory
        self._trained = 0  # of the networks in it

    @property
    def epsilon(self) -> float:
        """How often a choice is random now."""
        done = self._trained * _ENDS[-1] / self._trials
        return next((epsilon for (epsilon, _), end in zip(SCHEDULE, _ENDS, strict=True) if done < end), SCHEDULE[-1][0])

    def ask(self) -> Arch:
        """A network of the epsilon-greedy policy, a new one where `tries` of them bring one."""
        for _ in range(self._tries):
            arch = self._draw()
            if arch not in self._rewards:
                break
            self._learn(arch)
        return arch

    def tell(self, trial: Trial) -> None:
        """Only an architecture's first score counts: longer training of a few must not outweigh all others."""
        if self._rewards.setdefault(trial.arch, 0.0) == 0.0 and trial.score is not None:
            self._rewards[trial.arch] = trial.score  # of a network that may have failed at first
            self._trained += 1
        self._learn(trial.arch)
        memory = list(self._rewards)
        for arch in self._rng.choices(memory, k=self._replays):
            self._learn(arch)

    def _draw(self) -> Arch:
        picks: list[int] = []
        for slot in range(len(self._space.slots)):
            values = self._of((slot, picks[-1] if picks else -1))
            best = max(values)
            greedy = [pick for pick, value in enumerate(values) if value == best]
            picks.append(self._rng.choice(range(len(values)) if self._rng.random() < self.epsilon else greedy))
        return Arch(self._space.name, tuple(picks))

    def _of(self, state: State) -> list[float]:
        """Q-values of the options in a state."""
        return self._values.setdefault(state, [self._start] * len(self._space.options(state[0])))

    def _learn(self, arch: Arch) -> None:
        """Q <- (1 - rate) Q + rate * (what follows), the last choice first: Baker 2017, eq. 3 and algorithm 3."""
        target = self._rewards[arch]
        for slot in reversed(range(len(arch.picks))):
            values, pick = self._of((slot, arch.picks[slot - 1] if slot else -1)), arch.picks[slot]
            values[pick] += self._rate * (target - values[pick])
            target = max(values)
