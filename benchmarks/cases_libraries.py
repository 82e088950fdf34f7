"""The 8-bit and 4-bit quantisers beside FBGEMM, bitsandbytes and piquant, each in its own format.

FBGEMM: minimum and step of every row, codes of 8 or 4 bits and both float numbers in one buffer.
bitsandbytes: a code book of 8 bits, the scale a float. piquant: one scale for the whole tensor, which takes a
pass of its own to find.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from pydec import kernels

from .cases import BLOCK, Case, vectors
from .libraries import library, part

TOLERANCE = (
    0.05  # of a decoded 8-bit element, in standard deviations: half a step of the coarsest format here
)


def _absent(*names: str) -> dict[str, str]:
    return {name: reason for name in names if isinstance(reason := library(name), str)}


def _near(decoded: torch.Tensor, x: np.ndarray, tolerance: float) -> None:
    error = np.abs(decoded.numpy().reshape(-1) - x).max()
    assert error <= tolerance, f"decoded elements are off by up to {error}"


def encode8(n: int) -> Case:
    """One scale for 256 elements, codes of 8 bits; peers write into memory of their own where they must."""
    x = vectors(1, n)[0]
    codes, scales = np.zeros(n, np.uint8), np.zeros(n // BLOCK, np.float32)
    tensor, rows = torch.from_numpy(x), torch.from_numpy(x).view(-1, BLOCK)
    absent = _absent("fbgemm_gpu", "bitsandbytes", "piquant")
    peers: dict[str, Callable[[], object]] = {}
    checks: list[Callable[[], None]] = []
    if "fbgemm_gpu" not in absent:
        fbgemm = torch.ops.fbgemm
        fused = fbgemm.FloatToFused8BitRowwiseQuantized(rows)
        peers["FBGEMM, given memory"] = lambda: fbgemm.FloatToFused8BitRowwiseQuantizedOut(fused, rows)
        peers["FBGEMM"] = lambda: fbgemm.FloatToFused8BitRowwiseQuantized(rows)
        checks.append(lambda: _near(fbgemm.Fused8BitRowwiseQuantizedToFloat(fused), x, TOLERANCE))
    if "bitsandbytes" not in absent:
        functional = part("bitsandbytes.functional")
        if n <= 1 << 24:  # a minute of rounds beyond
            peers["bitsandbytes"] = lambda: functional.quantize_blockwise(tensor, blocksize=BLOCK)

        def check_bitsandbytes() -> None:
            few = tensor[: 1 << 16]
            _near(
                functional.dequantize_blockwise(*functional.quantize_blockwise(few, blocksize=BLOCK)),
                few.numpy(),
                0.2,
            )

        checks.append(check_bitsandbytes)
    if "piquant" not in absent:
        piquant = part("piquant.torch")
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")  # about the element type it asks for

        def quantize() -> tuple[torch.Tensor, float, int]:
            scale, zero = piquant.compute_quant_params(tensor, dtype=torch.quint8)
            return piquant.quantize(tensor, scale=scale, zero_point=zero, dtype=torch.quint8), scale, zero

        peers["piquant, one scale"] = quantize

    def ours() -> None:
        kernels.quant_encode(x, codes, scales, "int8", BLOCK)

    def check() -> None:
        ours()
        _near(
            torch.from_numpy(kernels.quant_decode(codes, scales, np.zeros(n, np.float32), "int8", BLOCK)),
            x,
            TOLERANCE,
        )
        for verify in checks:
            verify()

    n_bytes = 5 * n + scales.nbytes
    allocating = tuple(peer for peer in peers if peer != "FBGEMM, given memory")
    return Case(
        "int8 encode, libraries", {"n": n, "block": BLOCK}, n_bytes, ours, peers, check, absent, allocating
    )


def decode8(n: int) -> Case:
    """The other way."""
    x, out = vectors(1, n)[0], np.zeros(n, np.float32)
    codes, scales = np.zeros(n, np.uint8), np.zeros(n // BLOCK, np.float32)
    kernels.quant_encode(x, codes, scales, "int8", BLOCK)
    rows = torch.from_numpy(x).view(-1, BLOCK)
    absent = _absent("fbgemm_gpu")
    peers: dict[str, Callable[[], object]] = {}
    theirs = torch.zeros_like(rows)
    if not absent:
        fbgemm = torch.ops.fbgemm
        fused = fbgemm.FloatToFused8BitRowwiseQuantized(rows)
        peers["FBGEMM, given memory"] = lambda: fbgemm.Fused8BitRowwiseQuantizedToFloatOut(theirs, fused)
        peers["FBGEMM"] = lambda: fbgemm.Fused8BitRowwiseQuantizedToFloat(fused)

    def ours() -> None:
        kernels.quant_decode(codes, scales, out, "int8", BLOCK)

    def check() -> None:
        ours()
        _near(torch.from_numpy(out), x, TOLERANCE)
        for peer in peers.values():
            peer()
        if peers:
            _near(theirs, x, TOLERANCE)

    n_bytes = 5 * n + scales.nbytes
    allocating = tuple(peer for peer in peers if peer != "FBGEMM, given memory")
    return Case(
        "int8 decode, libraries", {"n": n, "block": BLOCK}, n_bytes, ours, peers, check, absent, allocating
    )


def encode4(n: int) -> Case:
    """Codes of 4 bits."""
    x = vectors(1, n)[0]
    codes, scales = np.zeros(n // 2, np.uint8), np.zeros(n // BLOCK, np.float32)
    rows = torch.from_numpy(x).view(-1, BLOCK)
    absent = _absent("fbgemm_gpu")
    peers: dict[str, Callable[[], object]] = {}
    if not absent:
        fbgemm = torch.ops.fbgemm
        peers["FBGEMM"] = lambda: fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(rows, 4)

    def ours() -> None:
        kernels.quant_encode(x, codes, scales, "int4", BLOCK)

    def check() -> None:
        ours()
        _near(
            torch.from_numpy(kernels.quant_decode(codes, scales, np.zeros(n, np.float32), "int4", BLOCK)),
            x,
            0.5,
        )
        if peers:
            packed = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(rows, 4)
            _near(torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(packed, 4), x, 0.5)

    n_bytes = 4 * n + n // 2 + scales.nbytes
    params = {"n": n, "block": BLOCK}
    return Case("int4 encode, libraries", params, n_bytes, ours, peers, check, absent, tuple(peers))


MAKERS: list[Callable[[int], Case]] = [encode8, decode8, encode4]
