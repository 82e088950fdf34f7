"""Sums, distances and robust averages. Results are tensors on the device; nothing waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def sqnorm(x: torch.Tensor) -> torch.Tensor:
    """As ``kernels.sqnorm``; returns a float64 of one element.

    A lane of a chunk of 2^16 elements is a chain of 2^12 additions. For vectors of few chunks these chains
    set the time, not the memory.
    """
    module = native()
    out = empty(x, 1, "float64")
    module.sqnorm_f32(x, out, None, empty(x, module.sum_work(len(x)), "float64"))
    return out


def checked_sqnorm(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``kernels.checked_sqnorm``: a float64, and the counter of NaN and infinite entries, in one pass."""
    module = native()
    out, bad = empty(x, 1, "float64"), counter(x)
    module.sqnorm_f32(x, out, bad, empty(x, module.sum_work(len(x)), "float64"))
    return out, bad


def sqdists(x: Tensors, y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """As ``kernels.sqdists`` for at most 64 vectors; returns a float64 for each."""
    module = native()
    out = empty(y, len(x), "float64") if out is None else out
    module.sqdists_f32(x, y, out, empty(y, len(x) * module.sum_work(len(y)), "float64"))
    return out


def count_nonfinite(x: torch.Tensor, bad: torch.Tensor | None = None) -> torch.Tensor:
    """As ``kernels.count_nonfinite``; returns the counter."""
    bad = counter(x) if bad is None else bad
    native().count_nonfinite_f32(x, bad)
    return bad


def gram(x: Tensors, centre: torch.Tensor | None = None, out: torch.Tensor | None = None) -> torch.Tensor:
    """As ``kernels.gram`` for at most 256 vectors; returns a float64 of shape (n, n).

    The sums of tiles are added in order, as on the CPU: 2^12 dependent additions for every 2^20 elements.
    """
    module = native()
    n = len(x)
    if out is None:
        out = empty(x[0], n * n, "float64").reshape(n, n)
    elif out.shape != (n, n) or not out.is_contiguous():
        raise ValueError(f"out must be contiguous, of shape ({n}, {n}), got shape {tuple(out.shape)}")
    work = empty(x[0], module.gram_work(n, len(x[0])), "float64")
    module.gram_f32(x, centre, out.reshape(-1), work)
    return out


def clip_factors(squared: torch.Tensor, weights: Sequence[float], radii: Sequence[float]) -> torch.Tensor:
    """Factors of ``kernels.clip_accumulate`` from squared distances on the device, such as ``sqdists`` gives.

    ``float32(w * min(1, r / sqrt(squared)))`` with the quotient and the product in float64; NaN, which leaves
    the vector out, where the distance is NaN or infinite.
    """
    factors = empty(squared, len(weights), "float32")
    native().clip_factors(squared, weights, radii, factors)
    return factors


def clip_accumulate(x: Tensors, factors: torch.Tensor, centre: torch.Tensor, out: torch.Tensor) -> None:
    """As ``kernels.clip_accumulate`` with the factors of ``clip_factors``, for at most 64 vectors."""
    native().add_differences_f32(x, factors, centre, out)


def median(x: Tensors, out: torch.Tensor) -> None:
    """As ``kernels.median``."""
    native().median_f32(x, out)


def trimmed_mean(x: Tensors, f: int, out: torch.Tensor) -> None:
    """As ``kernels.trimmed_mean``."""
    native().trimmed_mean_f32(x, f, out)


def mean_around_median(x: Tensors, f: int, out: torch.Tensor) -> None:
    """As ``kernels.mean_around_median``."""
    native().mean_around_median_f32(x, f, out)
