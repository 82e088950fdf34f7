"""What a virtual peer learns with: its model, its gradients and its local optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydec.gossip.base import Mixer
from pydec.optim.parts import Part

Vector = NDArray[np.float32]


class Learner(Protocol):
    """One peer's."""

    @property
    def parts(self) -> Sequence[Part]:
        """The rules of its algorithm, with what each works on."""

    @property
    def beside(self) -> Sequence[Mixer]:
        """Mixers of vectors that are averaged plainly beside the parameters (BatchNorm's)."""

    @property
    def loss(self) -> float:
        """Of the last batch; NaN before the first."""

    def ask(self, rate: float) -> None:
        """The next step begins: the gradient of the next batch is wanted, at the model as it is now.

        Args:
            rate: the step's learning rate, as a share of the peak.
        """

    def gradient(self) -> bool:
        """Have the gradient that was asked for; whether it may be used.

        Raises:
            NonFiniteError: it holds NaN or infinity, and that is not to be borne.
        """

    def step(self) -> None:
        """The local optimiser's step with that gradient."""

    def end_step(self) -> None:
        """What the gradient was needed for is over."""

    def load(self) -> None:
        """Bring the vectors up to date with the model."""

    def load_beside(self) -> None:
        """The same for what is averaged beside the parameters."""

    def store(self) -> None:
        """Bring the model up to date with the vectors."""

    def numbers(self) -> Vector:
        """All that is averaged, parameters first, shape (d,); may be the memory itself."""


class Learners(Protocol):
    """All peers'."""

    @property
    def parameters(self) -> int:
        """How many numbers of a model are parameters; ``Learner.numbers`` begins with them."""

    def allocate(self) -> None:
        """Take the memory of all peers, before any is made."""

    def make(self, rank: int, *, like: Learner | None = None, steps: int = 0) -> Learner:
        """The learner of one peer.

        Args:
            rank: whose share of the data it trains on.
            like: whose model a newcomer takes; None begins as all do.
            steps: that it counts as having taken.
        """

    def leave(self, learner: Learner) -> None:
        """That peer is gone, and asks for nothing any more."""

    def evaluate(self, numbers: Vector) -> dict[str, float]:
        """Loss and metric of a model on the validation data; empty if there are none."""

    @property
    def peer_bytes(self) -> int:
        """Memory of one peer: model, gradient and optimiser, without what its algorithm holds."""
