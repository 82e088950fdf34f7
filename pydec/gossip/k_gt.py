"""K-GT: many local steps with a correction that tracks what the other ranks' steps do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, algorithms
from pydec.gossip.checks import require_doubly_stochastic, require_lossless
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.exact_diffusion import CorrectionMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import LEAST_LR, Gradients, LocalOptimizer, Rule
from pydec.topology.base import Topology


class KGTRule(Rule):
    """Adds c to every gradient; z, the mean corrected gradient of the last local steps, says how c changes.

    ``start`` is the model that the local steps began with, and holds z while a round travels.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int, outer_lr: float) -> None:
        self.outer_lr = outer_lr
        self.start = aligned_floats(x.size)
        self._moves = CorrectionMixer(self.start, compressor, degree, 1.0)  # c += sum_j w_ij (z_j - z_i)
        self._moves.move_scale = 0.0
        self._rates = 0.0
        super().__init__(x, [AverageMixer(x, compressor, degree), self._moves])
        self.rebase()

    def rebase(self) -> None:
        """The next local steps start from here."""
        np.copyto(self.start, self.x)

    def gradient(self, gradients: Gradients) -> None:
        """The optimiser sees g + c."""
        for first, last, gradient in gradients.pieces(0, self.x.size, write=True):
            kernels.mix([gradient, self._moves.correction[first:last]], [1.0, 1.0], out=gradient)

    def after(self, lr: float) -> None:
        """Count the step by its learning rate."""
        self._rates += lr

    def depart(self) -> None:
        """z = (start - x) / (sum of the rates); x <- start - outer_lr (start - x)."""
        moved = np.subtract(self.start, self.x, out=self.start)
        kernels.mix([self.x, moved], [1.0, 1.0 - self.outer_lr], out=self.x)
        self._moves.learning = abs(self._rates) > LEAST_LR  # with no step there is nothing to correct
        scale = 1.0 / self._rates if self._moves.learning else 0.0
        kernels.mix([moved], [scale], out=self.start)

    def arrive(self) -> None:
        """The mixed model is where the next local steps start."""
        self._rates = 0.0
        self.rebase()

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Where the local steps started."""
        return {"start": self.start}

    def numbers(self) -> dict[str, float]:
        """The sum of the rates since the last round."""
        return {"rates": self._rates}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._rates = numbers["rates"]


@algorithms.register("k-gt")
@dataclass(frozen=True)
class KGT(Algorithm):
    """Gradient tracking for K local steps: exact under different data, two messages every K steps, any graph.

    K times x_i <- x_i - eta (g_i + c_i), from x_i0; z_i = (x_i0 - x_i) / (K eta);
    c_i <- c_i - z_i + sum_j w_ij z_j; x_i <- sum_j w_ij (x_j0 - outer_lr K eta z_j). K is ``local_steps``.

    The sum of c over the ranks stays 0. At the fixed point every local step is 0, so a large K does not pull
    ranks towards their own optima as it does dpsgd's. Graphs may change if they are doubly stochastic. If
    the learning rate changes between rounds, K eta is the sum of the rates. Around torch.optim.SGD without
    momentum. A round whose rates are all 0 only mixes.

    Source: Liu, Lin, Koloskova, Stich, "Decentralized Gradient Tracking with Local Steps", Optimization
    Methods and Software 2024, arXiv:2301.01313, algorithm 1 (K-GT).
    """

    budget: ClassVar[int] = 2
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    lossless: ClassVar[bool] = True
    needs_lr: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True
    plain_mixing: ClassVar[bool] = False
    outer_lr: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.outer_lr <= 1.0:
            raise ConfigError(f"k-gt.outer_lr must be in (0, 1], got {self.outer_lr}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression, and weights that let the sums drift."""
        require_doubly_stochastic("k-gt", topology)
        require_lossless("k-gt", compressor, "its error would stay in the correction")

    def check_local(self, local: LocalOptimizer) -> None:
        """Only plain SGD."""
        local.require_plain_sgd("k-gt", "algorithm='momentum-tracking'")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing, as of the models."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """A correction that starts at zero."""
        return KGTRule(x, compressor, degree, self.outer_lr)
