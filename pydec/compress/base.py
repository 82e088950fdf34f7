"""What a compressor is: a rule that turns a float32 vector into fewer bytes and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.wire import Bytes, Payload, Vector, check_vector
from pydec.registry import Registry

__all__ = ["Bytes", "Compressor", "Payload", "Vector", "compressors"]


class Compressor(ABC):
    """Encodes float32 vectors of shape (n,). Immutable; state such as error feedback lives outside.

    A compressor that draws random numbers draws them from a key, which ``keyed`` sets: the same key and
    the same vector give the same bytes, on every CPU and in every process.

    Payloads are self-describing, canonical (equal vectors give equal bytes) and little-endian; the
    first byte is ``wire_id``. ``wire`` describes their header. Everything that takes a payload
    accepts it at any alignment.
    """

    wire_id: ClassVar[int]
    """First byte of every payload; never reused, never renumbered."""
    lossless: ClassVar[bool] = False
    """Whether decode(encode(x)) has the bits of x."""
    oblivious: ClassVar[bool] = False
    """Whether entries are chosen whatever their size, so that the contraction holds on average only."""

    @property
    @abstractmethod
    def block(self) -> int:
        """Elements that are encoded independently of all others, or 0 if the rule is global.

        With block > 0, encoding pieces of a vector cut at multiples of block gives the same
        values as encoding it whole, unless random numbers are drawn.
        """

    @abstractmethod
    def max_bytes(self, n: int) -> int:
        """Largest payload for n elements, in bytes."""

    @abstractmethod
    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Encode x into ``out`` (at least ``max_bytes(n)`` long); returns the payload's length.

        Raises:
            TypeError: x or ``out`` is no array of its type.
            ValueError: ``out`` is too short or read-only, or x has NaN or infinite entries and this
                compressor has no code for them. ``out`` may have been written to.
        """

    @abstractmethod
    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Decode into ``out``, shape (n,), and return it.

        Raises:
            FrameError: the bytes are no payload of this compressor for n elements; ``out`` is
                unchanged. The parameters are those of the payload, whatever this object's are.
        """

    @abstractmethod
    def delta(self, n: int) -> float:
        """Contraction: E||x - decode(encode(x))||^2 <= (1 - delta) ||x||^2, in (0, 1].

        0 if that holds for no positive delta: an unbiased compressor of variance 1 or more.
        """

    def variance(self, n: int) -> float | None:
        """Omega with E||x - decode(encode(x))||^2 <= omega ||x||^2, of an unbiased compressor.

        Unbiased means E[decode(encode(x))] = x over the keys. None if the compressor is biased.
        """
        return 0.0 if self.lossless else None

    def keyed(self, key: int) -> Compressor:
        """This compressor, drawing its random numbers from ``key``; itself if it draws none.

        A sender takes another key for every message: ``draw_key(seed, peer, round, bucket)``. Decoding
        needs no key.

        Args:
            key: in 0..2^64 - 1.
        """
        return self

    @abstractmethod
    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """``out[i] += sum_k weights[k] * decode(payloads[k])[i]``, in increasing k.

        Rounds to float32 after each product and each addition. Weights are finite.

        Raises:
            FrameError: as ``decode``; ``out`` is unchanged.
            ValueError: weights are not as many as payloads or not finite; ``out`` is unchanged.
        """

    def accumulate_own(
        self,
        own: Bytes,
        own_weight: float,
        payloads: Sequence[Payload],
        weights: Sequence[float],
        out: Vector,
    ) -> None:
        """``accumulate([own, *payloads], [own_weight, *weights], out)``, where ``own`` is trusted.

        Args:
            own: what ``encode_into`` of an equal compressor wrote, in memory that nobody else writes;
                compressors may leave out the checks of its body.
            own_weight: its weight.
            payloads: what others sent.
            weights: one for each.
            out: shape (n,), updated.

        Raises:
            FrameError, ValueError: as ``accumulate``.
        """
        self.accumulate([own, *payloads], [own_weight, *weights], out)

    def check(self, payload: Payload, n: int) -> None:
        """Raise FrameError unless ``decode`` would take the payload for n elements.

        Here by decoding to memory that is allocated for it; compressors that can look without do.
        """
        self.decode(payload, np.empty(n, np.float32))

    def sqdist(self, payload: Payload, x: Vector) -> float:
        """Squared distance ``sum_i (decode(payload)[i] - x[i])^2``, with the bits of ``kernels.sqdist``.

        Here by decoding to memory that is allocated for it; compressors that can do it in one pass do.

        Raises:
            FrameError: as ``decode``.
        """
        check_vector("x", x)
        return kernels.sqdist(self.decode(payload, np.empty_like(x)), x)

    def sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """Squared distances of what m payloads hold to what ``own`` holds, from their bytes; or None.

        Products are not rounded to float32 as ``decode`` rounds them, so the numbers may differ from those
        of ``sqdist`` by that. None if the compressor has no such kernel, or a payload's parameters are
        others than those of ``own``.

        Args:
            own: what ``encode_into`` of an equal compressor wrote; it is trusted.
            payloads: what others sent; looked at as ``check`` does.
            n: elements.

        Returns:
            float64, shape (m,).

        Raises:
            FrameError: as ``decode``, of one of ``payloads``.
        """
        return None

    def pair_sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """As ``sqdists`` of every pair of the own vector and what m payloads hold.

        Returns:
            float64, shape (m + 1, m + 1), symmetric, the own vector first; None also where m is too large.
        """
        return None

    @classmethod
    @abstractmethod
    def from_payload(cls, payload: Payload) -> Compressor:
        """A compressor with the parameters that the payload's header states.

        Raises:
            FrameError: the header is not one of this class.
        """

    def view(self, payload: Payload, n: int) -> Vector:
        """The n elements of a lossless payload, as a read-only view without copying.

        Raises:
            FrameError: as ``decode``.
            TypeError: this compressor is not lossless.
        """
        raise TypeError(f"{type(self).__name__} payloads hold no vector to view; use decode")

    def views(self, payloads: Sequence[Payload], n: int) -> list[Vector] | None:
        """``view`` of every payload, or None where compression may have lost something.

        Raises:
            FrameError: as ``decode``, of a payload that has a view.
        """
        return [self.view(payload, n) for payload in payloads] if self.lossless else None

    def encode(self, x: Vector) -> bytes:
        """Encode x into new bytes; the training path uses ``encode_into``."""
        check_vector("x", x)
        out = np.empty(self.max_bytes(x.size), np.uint8)
        return out[: self.encode_into(x, out)].tobytes()

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """Encode a = x + residual; residual becomes a - decode(payload). Returns the length.

        Allocates nothing. Source of error feedback: Stich, Cordonnier, Jaggi, "Sparsified SGD with
        Memory", NeurIPS 2018, arXiv:1809.07599, algorithm 1.

        Args:
            x: shape (n,).
            residual: shape (n,), updated.
            out: as for ``encode_into``.

        Raises:
            ValueError: as ``encode_into``. The residual is then what it was, up to the rounding of
                x + residual, and 0 where that is not finite.
        """
        check_vector("x", x)
        check_vector("residual", residual, x.size)
        with np.errstate(invalid="ignore", over="ignore"):
            np.add(x, residual, out=residual)
        try:
            length = self.encode_into(residual, out)
        except (TypeError, ValueError):
            restore(residual, x)
            raise
        if self.lossless:
            residual.fill(0.0)
        else:
            self.accumulate([out[:length]], [-1.0], residual)
        return length


compressors: Registry[Compressor] = Registry("compressor")


def restore(residual: Vector, x: NDArray[np.float32]) -> None:
    """Take x out of ``residual`` again after a failed encoding; 0 where the result is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(residual, x, out=residual)
    residual[~np.isfinite(residual)] = 0.0
