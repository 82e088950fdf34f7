"""What a call costs before its first element: 64 elements, beside torch's smallest in-place call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from pydec import kernels

from .harness import Row, interleaved

N = 64
CALLS = 2000
"""Calls in a timed round, so that the clock's own cost does not count."""


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            call()

    return run


def rows(rounds: int) -> Iterator[Row]:
    """Calls of two kernels with three vectors each, as arrays, tensors and Parameters."""
    x, y, out = (np.full(N, value, np.float32) for value in (1.0, 2.0, 0.0))
    weights = [0.5, 0.25]
    codes, scales = np.zeros(N, np.uint8), np.zeros(N // 16, np.float32)
    tensors = [torch.from_numpy(array) for array in (x, y, out)]
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in tensors]
    their_codes, their_scales = torch.from_numpy(codes), torch.from_numpy(scales)
    total, term = torch.zeros(N), torch.zeros(N)
    ours: dict[tuple[str, str], Callable[[], object]] = {
        ("mix of 2", "arrays"): lambda: kernels.mix([x, y], weights, out),
        ("mix of 2", "tensors"): lambda: kernels.mix(tensors[:2], weights, tensors[2]),
        ("mix of 2", "parameters"): lambda: kernels.mix(parameters[:2], weights, parameters[2]),
        ("int8 encode", "arrays"): lambda: kernels.quant_encode(x, codes, scales, "int8", 16),
        ("int8 encode", "tensors"): lambda: kernels.quant_encode(
            tensors[0], their_codes, their_scales, "int8", 16
        ),
    }
    contenders = {" of ".join(key): repeated(call) for key, call in ours.items()}
    timings = interleaved({**contenders, "peer": repeated(lambda: total.add_(term))}, rounds)
    expected = np.full(N, 1.0, np.float32)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(parameters[2].detach().numpy(), expected)
    assert (codes == 127).all()
    peer_us = timings["peer"].median_s / CALLS * 1e6
    for (name, kind), key in zip(ours, contenders, strict=True):
        ours_us = timings[key].median_s / CALLS * 1e6
        yield Row(
            suite="kernels",
            name=f"call: {name}",
            params={"n": N, "vectors": 3, "kind": kind, "threads": 1, "rounds": rounds},
            value=ours_us,
            unit="us",
            peer="torch a.add_(b)",
            peer_value=peer_us,
            ratio=peer_us / ours_us,
        )
