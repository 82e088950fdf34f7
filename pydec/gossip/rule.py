"""What an algorithm does with one vector besides mixing: before and after a local step, around rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pydec.compress.base import Vector
from pydec.errors import ConfigError
from pydec.gossip.memory import aligned_floats

if TYPE_CHECKING:
    from pydec.gossip.base import Mixer

LEAST_LR = 1e-20
"""Learning rates up to this one count as 0: their inverse is too near the largest float32."""


@dataclass(frozen=True)
class LocalOptimizer:
    """What an algorithm may know of the optimiser that takes the local steps.

    Args:
        name: its class.
        sgd: whether it is torch's SGD without dampening, Nesterov and maximize.
        momentum: the largest of its groups.
        adaptive: whether it scales every coordinate by its own gradients, as Adam does.
    """

    name: str = "SGD"
    sgd: bool = True
    momentum: float = 0.0
    adaptive: bool = False

    def require_plain_sgd(self, algorithm: str, instead: str = "") -> None:
        """Raise ConfigError unless the local step is x - lr * gradient.

        Args:
            algorithm: its name.
            instead: what to use for a momentum; its own, unless something is named here.
        """
        if not self.sgd:
            raise ConfigError(
                f"{algorithm}'s equations are those of SGD and do not hold for {self.name}; wrap "
                "torch.optim.SGD (without nesterov, dampening and maximize), or use algorithm='dpsgd'"
            )
        if self.momentum and instead:
            raise ConfigError(
                f"{algorithm}'s equations do not hold with a momentum of {self.momentum:g}; use "
                f"torch.optim.SGD(..., momentum=0), or {instead}"
            )
        if self.momentum:
            raise ConfigError(
                f"{algorithm} has a momentum of its own, and SGD's would be added to it: use "
                f"torch.optim.SGD(..., momentum=0) and algorithm='{algorithm}:momentum={self.momentum:g}'"
            )


class Gradients(Protocol):
    """The gradients that belong to one vector, in its order."""

    def pieces(self, start: int, stop: int, *, write: bool = False) -> Iterator[tuple[int, int, Vector]]:
        """(first, last, gradient) of every tensor's part of [start, stop), in order.

        What lies between tensors is padding, whose gradient is 0. A gradient may be written to until
        the next piece is asked for; ``write`` carries that over to the tensor's ``grad``, of whole
        tensors only.
        """


class Rule:
    """State of one algorithm on one vector ``x``, and its part in a step.

    A step calls ``before``, then ``gradient`` or ``take_step`` and the local optimiser, then
    ``after``. If rounds follow it calls ``depart``, runs them, and calls ``arrive``; otherwise, with
    more than one local step between rounds, ``rest``: a step without rounds is a round whose mixing
    matrix is the identity. This class does nothing in any of them.

    Args:
        x: float32 array of shape (n,), C-contiguous; borrowed for the rule's life.
        mixers: what a round sends: mixers of ``x`` and of other vectors of the rule.
    """

    def __init__(self, x: Vector, mixers: Sequence[Mixer]) -> None:
        self.x = x
        self.mixers = list(mixers)

    def arrange(self, tensors: Sequence[tuple[int, int, int]]) -> None:
        """Where the tensors lie in ``x``, before the first step.

        Args:
            tensors: (start, rows, columns) of each, in order: in memory it is that matrix, row after row.
        """

    def rebase(self) -> None:
        """``x`` has been replaced from outside: at the start, by a merge, from a checkpoint."""

    def restart(self) -> None:
        """Ranks have died: begin the recursion again from ``x``, as all survivors do in this step.

        Sums over the ranks that the equations keep (of corrections, of trackers minus gradients) then hold
        over the survivors again, whatever the dead took with them. The mixers do the same.
        """
        for mixer in self.mixers:
            mixer.restart()

    def count(self, samples: float) -> None:
        """The coming local steps are taken on so many samples."""

    def before(self, lr: float) -> None:
        """A local step is about to be taken with this learning rate."""

    def gradient(self, gradients: Gradients) -> None:
        """Look at the gradients, or replace them by what the local optimiser should see."""

    def arm(self, gradients: Gradients, lr: float, weight_decay: float) -> None:
        """``take_step`` will follow the round that is about to be finished; it may be fused with it."""

    def take_step(self, gradients: Gradients, lr: float, weight_decay: float) -> None:
        """Take the local step, of algorithms whose ``takes_step`` says so."""
        raise NotImplementedError(f"{type(self).__name__} leaves the local step to the wrapped optimiser")

    def after(self, lr: float) -> None:
        """The local step has been taken, and ``x`` is its result."""

    def depart(self) -> None:
        """``x`` is about to be mixed."""

    def arrive(self) -> None:
        """``x`` has been mixed."""

    def rest(self) -> None:
        """A local step is over and no round follows it."""

    @property
    def state_bytes(self) -> int:
        """Bytes that the rule holds beyond ``x`` and its mixers' state."""
        return sum(part.nbytes for part in self.own_state().values())

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Vectors that the rule holds and a checkpoint must, by name (views, not copies)."""
        return {}

    def state(self) -> dict[str, NDArray[np.float32]]:
        """All vectors that a checkpoint must hold: the rule's and its mixers'."""
        found = dict(self.own_state())
        for mixer in self.mixers:
            found.update(mixer.state())
        return found

    def numbers(self) -> dict[str, float]:
        """Numbers that a checkpoint must hold, by name."""
        return {}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """Take back what ``numbers`` gave."""


class Start:
    """A copy of the vector from before the local step, and that step's learning rate.

    Args:
        x: the vector.
    """

    def __init__(self, x: Vector) -> None:
        self._x = x
        self.vector = aligned_floats(x.size)
        self.lr = 0.0

    def take(self, lr: float) -> None:
        """Copy the vector; remember the rate, or 0 where it is too small to divide by."""
        np.copyto(self.vector, self._x)
        self.lr = lr if abs(lr) > LEAST_LR else 0.0

    def moved(self) -> Vector:
        """start - x, in the copy's place, which is lost."""
        return np.subtract(self.vector, self._x, out=self.vector)
