"""How many rounds of mixing follow a step: always as many, or as many as the neediest rank asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pydec.errors import ConfigError
from pydec.gossip.consensus import NumbersMixer
from pydec.registry import Registry
from pydec.topology.base import Topology


class Control(ABC):
    """A rule for the number of rounds after a step."""

    @property
    @abstractmethod
    def most(self) -> int:
        """The most rounds that it ever asks for."""

    @property
    def adapts(self) -> bool:
        """Whether it needs estimates and agreement."""
        return False


controls: Registry[Control] = Registry("mixing control")


@controls.register("fixed")
@dataclass(frozen=True)
class Fixed(Control):
    """The same number of rounds after every step (or after every period of local steps)."""

    rounds: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= 64:
            raise ConfigError(f"fixed.rounds must be in [1, 64], got {self.rounds}")

    @property
    def most(self) -> int:
        """``rounds``."""
        return self.rounds


@controls.register("adaptive")
@dataclass(frozen=True)
class Adaptive(Control):
    """More rounds in the first steps, after a fall of the learning rate, and while models are too far apart.

    Every rank forms its own wish; packets carry the largest wish heard so far, and once everybody must have
    heard of everybody, all ranks do what the neediest one asked for. Ranks therefore never disagree on the
    number of rounds, and no all-reduce is needed.

    Source: Kong, Lin, Koloskova, Jaggi, Stich, "Consensus Control for Decentralized Deep Learning", ICML
    2021, arXiv:2102.04828.

    Args:
        rounds: the most rounds after a step.
        early: steps from the start in which ``rounds`` are done.
        after: steps with ``rounds`` rounds after the learning rate has fallen.
        fall: factor that counts as a fall, against its largest value since the last one.
        target: estimated consensus distance above which a round is added; 0 sets no target.
    """

    rounds: int = 4
    early: int = 100
    after: int = 100
    fall: float = 0.5
    target: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.rounds <= 64:
            raise ConfigError(f"adaptive.rounds must be in [2, 64], got {self.rounds}")
        if self.early < 0 or self.after < 0 or self.target < 0:
            raise ConfigError(
                f"adaptive.early, after and target must not be negative, got {self.early}, {self.after} and "
                f"{self.target}"
            )
        if not 0.0 < self.fall < 1.0:
            raise ConfigError(f"adaptive.fall must be in (0, 1), got {self.fall}")

    @property
    def most(self) -> int:
        """``rounds``."""
        return self.rounds

    @property
    def adapts(self) -> bool:
        """True."""
        return True


class Controller:
    """Carries out ``Adaptive`` on one rank.

    Args:
        control: the rule.
        topology: who hears whom; from it each rank knows when all have heard of all.
        numbers: the mixer that carries the largest wish.
    """

    def __init__(self, control: Adaptive, topology: Topology, numbers: NumbersMixer) -> None:
        self.rounds = control.rounds if control.early else 1
        """How many rounds follow the next step, the same on all ranks."""
        self._control = control
        self._topology = topology
        self._numbers = numbers
        self._peak = 0.0
        self._until = control.early
        self._wish = self.rounds
        self._heard: list[int] = []
        self._open()

    def step(self, step: int, lr: float, distance: float) -> None:
        """Form this rank's wish, which travels from the next window on.

        Args:
            step: steps done.
            lr: learning rate of the step.
            distance: estimated consensus distance.
        """
        control = self._control
        if lr < control.fall * self._peak:
            self._until, self._peak = step + control.after, lr
        self._peak = max(self._peak, lr)
        if step < self._until:
            self._wish = control.rounds
        elif control.target and distance > control.target:
            self._wish = min(control.rounds, self.rounds + 1)
        elif control.target and distance > 0.5 * control.target:
            self._wish = self.rounds
        else:
            self._wish = max(1, self.rounds - 1)

    def round(self, round: int) -> None:
        """A round is over; at the end of a window all ranks adopt the largest wish of its start."""
        n = self._topology.size
        before = self._heard
        self._heard = [_union(before, [rank, *self._topology.neighbors(rank, round)]) for rank in range(n)]
        if all(heard == (1 << n) - 1 for heard in self._heard):
            self.rounds = int(self._numbers.largest)
            self._open()

    def _open(self) -> None:
        self._heard = [1 << rank for rank in range(self._topology.size)]
        self._numbers.largest = float(self._wish)

    def numbers(self) -> list[float]:
        """What a checkpoint must hold, in numbers of at most 32 bits."""
        words = -(-self._topology.size // 32)
        packed = [float(heard >> 32 * w & 0xFFFFFFFF) for heard in self._heard for w in range(words)]
        return [self.rounds, self._peak, self._until, self._wish, self._numbers.largest, *packed]

    def load_numbers(self, numbers: Sequence[float]) -> None:
        """Take back what ``numbers`` gave."""
        self.rounds, self._until, self._wish = int(numbers[0]), int(numbers[2]), int(numbers[3])
        self._peak, self._numbers.largest = numbers[1], numbers[4]
        words = -(-self._topology.size // 32)
        packed = [int(number) for number in numbers[5:]]
        self._heard = [
            sum(word << 32 * w for w, word in enumerate(packed[start : start + words]))
            for start in range(0, len(packed), words)
        ]


def _union(sets: Sequence[int], members: Sequence[int]) -> int:
    found = 0
    for member in members:
        found |= sets[member]
    return found


def make(spec: str) -> Control:
    """Build a mixing control from its specification, for example ``fixed:rounds=2``.

    Raises:
        ConfigError: unknown name or option, or a value outside its range.
    """
    return controls.make(spec)
