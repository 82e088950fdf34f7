"""Rounds of CHOCO on quantised differences: the local step in one pass, or the end of a round in one.

Vectors are of one type. Those of 16 bits are widened to float32, and each is rounded once, when it is
written. So an estimate of 16 bits and the neighbours' sums, rounded in every round each by itself, stray from
what was sent; where rounds are many, keep float32 copies. In float64 all is float64 but the difference, which
is rounded to float32 to be encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydec.kernels._arrays import Bytes, State, Vector
from pydec.kernels._library import native
from pydec.kernels.quant import BLOCK, Codec


@dataclass(frozen=True)
class ChocoStep:
    """Numbers of a CHOCO step.

    Args:
        gamma: consensus step size; 0 in the first step, when there is nothing to mix yet.
        own_weight: the rank's weight for itself, w_ii.
        lr: learning rate of the local step; without a gradient it has no effect.
        codec: what a code is, as for ``quant_encode``.
        block: elements that share a scale, a multiple of ``quant_group(codec)``.
    """

    gamma: float
    own_weight: float
    lr: float = 0.0
    codec: Codec = "int8"
    block: int = BLOCK

    def run(
        self,
        x: State,
        estimate: State,
        mixed: State,
        codes: Bytes,
        scales: Vector,
        gradient: State | None = None,
        *,
        key: int | None = None,
        first: int = 0,
    ) -> int:
        """Mix, step, encode and update both estimates, element by element::

            x        += gamma * mixed - gamma * estimate      # the mixing that ends the last round
            x        -= lr * gradient                         # the local step, if there is a gradient
            codes, scales = quant_encode(x - estimate)        # this round's message
            mixed    += own_weight * decode(codes, scales)
            estimate += decode(codes, scales)

        The bits are those of ``mix``, a subtraction, ``quant_encode`` and ``quant_accumulate`` one after
        the other, which read and write twice as many bytes. What is left of the round is to
        accumulate the neighbours' messages on ``mixed``. Releases the GIL.

        Source: Koloskova, Stich, Jaggi, "Decentralized Stochastic Optimization and Gossip Algorithms
        with Compressed Communication", ICML 2019, arXiv:1902.00340, algorithm 2.

        Args:
            x: float32, float64, float16 or bfloat16, shape (n,), updated.
            estimate: of the type of x, shape (n,), updated: x_hat_i.
            mixed: of the type of x, shape (n,), updated: sum_j w_ij x_hat_j.
            codes: uint8, shape (quant_bytes(codec, n),), overwritten.
            scales: float32, shape (ceil(n / block),), overwritten.
            gradient: of the type of x, shape (n,).
            key: 64 bits from which random numbers are drawn; None to round to nearest.
            first: place of x[0] in the vector that the key belongs to, a multiple of 16.

        Returns:
            The number of blocks with a NaN or an infinity in x - estimate, or a scale that would decode to
            infinity. Their scale is NaN, and their estimates stay; the message must not be sent.

        Raises:
            TypeError: an array has another dtype.
            ValueError: a shape or number does not fit, arrays overlap, or one is read-only.

        Cost, of float32: reads 12 * n bytes, 16 * n with a gradient; writes (12 + b / 8) * n + 4 * n / block
        bytes.
        """
        return native.choco_step_f32(
            x,
            estimate,
            mixed,
            gradient,
            self.gamma,
            self.own_weight,
            self.lr,
            codes,
            scales,
            self.codec,
            self.block,
            key,
            first,
        )


def choco_absorb(
    x: State,
    estimate: State,
    mixed: State,
    gamma: float,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    weights: Sequence[float],
    codec: Codec,
    block: int = BLOCK,
) -> None:
    """End a round whose m messages are there, the own one first, in one pass, element by element::

        mixed    += weights[k] * decode(codes[k], scales[k])    # for k = 0, 1, ... in order
        estimate += decode(codes[0], scales[0])
        x        += gamma * mixed - gamma * estimate

    The bits are those of ``quant_accumulate`` twice and ``mix``. Releases the GIL.

    Source: as ``ChocoStep``.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,), updated.
        estimate: of the type of x, shape (n,), updated: x_hat_i.
        mixed: of the type of x, shape (n,), updated: sum_j w_ij x_hat_j.
        gamma: consensus step size.
        codes: m >= 1 uint8 arrays of shape (quant_bytes(codec, n),).
        scales: m float32 arrays of shape (ceil(n / block),).
        weights: m finite numbers, rounded to float32 unless x is float64.
        codec: as they were encoded.
        block: as they were encoded.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count or number does not fit, arrays overlap, or one is read-only. Nothing has
            changed then.

    Cost, of float32: reads (12 + m b / 8) * n bytes, writes 12 * n bytes.
    """
    native.choco_absorb_f32(x, estimate, mixed, gamma, codes, scales, weights, codec, block)
