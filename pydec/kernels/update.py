"""Mixing steps with what follows them, each in one pass: push-sum, gradient tracking, momentum SGD.

``sum`` below is ``mix(x, weights)`` with the same bits; every further operation rounds to float32
once, so each call gives the bits of the separate steps. All vectors of a call are of one type. In float64
everything is float64; vectors of 16 bits are widened to float32, and each output is rounded once, from the
float32 numbers (a velocity is not rounded on the way to ``out``).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import S, State
from pydec.kernels._library import native


def push_sum_mix(x: Sequence[State], weights: Sequence[float], divisor: float, out: State, ratio: S) -> S:
    """Mix and de-bias: ``out = sum``, ``ratio = out / divisor``. Releases the GIL.

    Source: Kempe, Dobra, Gehrke, "Gossip-Based Computation of Aggregate Information", FOCS 2003;
    Assran, Loizou, Ballas, Rabbat, "Stochastic Gradient Push for Distributed Deep Learning",
    ICML 2019, arXiv:1811.10792, algorithm 1.

    Args:
        x: m >= 1 arrays of shape (n,), float32, float64, float16 or bfloat16, the push-sum numerators.
        weights: m finite numbers.
        divisor: the mixed push-sum weight, positive: the same sum over the scalars.
        out: shape (n,), overwritten by the mixed numerator; may be exactly one of the x.
        ratio: shape (n,), overwritten by the de-biased model; overlaps nothing.

    Returns:
        ``ratio``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: a shape, count or number does not fit, or arrays overlap.

    Cost, with b bytes an element: reads b * m * n bytes, writes 2 b * n bytes.
    """
    native.push_sum_f32(x, weights, divisor, out, ratio)
    return ratio


def tracking_mix(x: Sequence[State], weights: Sequence[float], gradient: State, previous: State, out: S) -> S:
    """Gradient tracking: ``out = (sum + gradient) - previous``, ``previous = gradient``. Releases the GIL.

    Source: Pu, Nedic, "Distributed Stochastic Gradient Tracking Methods", 2018, arXiv:1805.11454.

    Args:
        x: m >= 1 arrays of shape (n,), float32, float64, float16 or bfloat16, the
            trackers of the neighbours and its own.
        weights: m finite numbers.
        gradient: shape (n,), the new gradient.
        previous: shape (n,), the gradient of the step before; becomes ``gradient``.
        out: shape (n,), overwritten; may be exactly one of the x.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: a shape, count or number does not fit, or arrays overlap.

    Cost, with b bytes an element: reads b * (m + 2) * n bytes, writes 2 b * n bytes.
    """
    native.tracking_f32(x, weights, gradient, previous, out)
    return out


def momentum_mix(
    x: Sequence[State],
    weights: Sequence[float],
    gradient: State,
    velocity: State,
    out: S,
    *,
    momentum: float,
    lr: float,
) -> S:
    """Momentum SGD on a mix: ``velocity = momentum * velocity + gradient``, ``out = sum - lr * velocity``.

    The combine-then-adapt order of decentralised momentum SGD, with torch.optim.SGD's momentum
    (dampening 0, no weight decay, not Nesterov). Releases the GIL.

    Args:
        x: m >= 1 arrays of shape (n,), float32, float64, float16 or bfloat16.
        weights: m finite numbers.
        gradient: shape (n,).
        velocity: shape (n,), updated.
        out: shape (n,), overwritten; may be exactly one of the x.
        momentum: finite.
        lr: learning rate, finite.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: a shape, count or number does not fit, or arrays overlap.

    Cost, with b bytes an element: reads b * (m + 2) * n bytes, writes 2 b * n bytes.
    """
    native.momentum_f32(x, weights, gradient, momentum, lr, velocity, out)
    return out
