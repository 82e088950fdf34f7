"""One step of CHOCO with int8 codes in one pass over its vectors."""

from __future__ import annotations

from dataclasses import dataclass

from pydec.kernels._arrays import Int8s, Vector
from pydec.kernels._library import native
from pydec.kernels.int8 import BLOCK


@dataclass(frozen=True)
class ChocoStep:
    """Numbers of a CHOCO step.

    Args:
        gamma: consensus step size; 0 in the first step, when there is nothing to mix yet.
        own_weight: the rank's weight for itself, w_ii.
        lr: learning rate of the local step; without a gradient it has no effect.
        block: elements that share a scale, a multiple of 16.
    """

    gamma: float
    own_weight: float
    lr: float = 0.0
    block: int = BLOCK

    def int8(
        self,
        x: Vector,
        estimate: Vector,
        mixed: Vector,
        codes: Int8s,
        scales: Vector,
        gradient: Vector | None = None,
    ) -> int:
        """Mix, step, encode and update both estimates, element by element::

            x        += gamma * mixed - gamma * estimate      # the mixing that ends the last round
            x        -= lr * gradient                         # the local step, if there is a gradient
            codes, scales = int8_encode(x - estimate)         # this round's message
            mixed    += own_weight * decode(codes, scales)
            estimate += decode(codes, scales)

        The bits are those of ``mix``, a subtraction, ``int8_encode`` and ``int8_accumulate`` one after
        the other, which read and write twice as many bytes. What is left of the round is to
        accumulate the neighbours' messages on ``mixed``. Releases the GIL.

        Source: Koloskova, Stich, Jaggi, "Decentralized Stochastic Optimization and Gossip Algorithms
        with Compressed Communication", ICML 2019, arXiv:1902.00340, algorithm 2.

        Args:
            x: float32, shape (n,), updated.
            estimate: float32, shape (n,), updated: x_hat_i.
            mixed: float32, shape (n,), updated: sum_j w_ij x_hat_j.
            codes: int8, shape (n,), overwritten.
            scales: float32, shape (ceil(n / block),), overwritten.
            gradient: float32, shape (n,).

        Returns:
            The number of blocks with a NaN or an infinity in x - estimate. Their scale is NaN, and
            their estimates stay; the message must not be sent.

        Raises:
            TypeError: an array has another dtype.
            ValueError: a shape or number does not fit, arrays overlap, or one is read-only.

        Cost: reads 12 * n bytes, 16 * n with a gradient; writes 13 * n + 4 * n / block bytes.
        """
        return native.choco_int8_step_f32(
            x, estimate, mixed, gradient, self.gamma, self.own_weight, self.lr, codes, scales, self.block
        )
