"""What the blockwise quantisers share: payloads of scales and codes, error feedback, rounding, checks."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload, Vector, restore
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_length,
    check_vector,
    check_weights,
    nonfinite,
    read_header,
    room,
    write_header,
)
from pydec.errors import ConfigError, FrameError
from pydec.kernels.quant import Codec

MAX_BLOCK = 1 << 16
Rounding = Literal["nearest", "stochastic"]
_Keyed = TypeVar("_Keyed", bound="IntQuantiser")


class _Body(NamedTuple):
    codec: Codec
    block: int
    scales: Vector
    codes: Bytes


class Quantiser(Compressor):
    """One float32 scale for each block of elements and a code of a few bits for each element.

    Payload: header, ceil(n / block) float32 scales, codes as ``kernels.quant_encode`` lays them out.
    The header's parameter is the block; what else a class needs to know is in the bits above it.
    """

    name: ClassVar[str]
    """As registered; for messages."""

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """What a code is."""

    @property
    def key(self) -> int | None:
        """What random numbers are drawn from; None if codes are rounded to nearest."""
        return None

    def keyed(self, key: int) -> Quantiser:
        """As ``Compressor.keyed``."""
        return self

    @property
    def parameter(self) -> int:
        """The header's parameter."""
        return self.block

    @classmethod
    @abstractmethod
    def read_parameter(cls, parameter: int) -> tuple[Codec, int]:
        """Codec and block of a header's parameter, the block unchecked; FrameError if it has no codec."""

    def max_bytes(self, n: int) -> int:
        """16 + 4 ceil(n / block) and the codes; payloads are never shorter."""
        return _payload_bytes(self.codec, self.block, n)

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Quantise x behind a header; ValueError if an element is NaN, infinite or at float32's limit."""
        check_vector("x", x)
        payload, body = self._start(out, x.size)
        if self._encode(x, None, body):
            raise _refusal(self.name, x)
        return payload.size

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """As ``Compressor.encode_feedback_into``, in one pass over x and residual."""
        check_vector("x", x)
        check_vector("residual", residual, x.size)
        payload, body = self._start(out, x.size)
        if self._encode(x, residual, body):
            error = _refusal(self.name, residual)  # bad blocks hold x + residual still
            np.nan_to_num(body.scales, copy=False)  # and now decode to 0
            kernels.quant_accumulate([body.codes], [body.scales], [1.0], residual, body.codec, body.block)
            restore(residual, x)
            raise error
        return payload.size

    def encode_difference_into(self, x: Vector, y: Vector, out: Bytes) -> int:
        """Encode x - y as ``encode_into`` does, with the same bytes, in one pass that writes nothing else."""
        check_vector("x", x)
        check_vector("y", y, x.size)
        payload, body = self._start(out, x.size)
        if kernels.quant_encode_difference(
            x, y, body.codes, body.scales, body.codec, body.block, key=self.key
        ):
            with np.errstate(invalid="ignore", over="ignore"):
                raise _refusal(self.name, x - y)
        return payload.size

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Multiply the level of every code by its block's scale."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        return kernels.quant_decode(body.codes, body.scales, out, body.codec, body.block)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One pass over ``out`` and all payloads of equal parameters."""
        check_vector("out", out)
        check_weights(weights, payloads)
        _accumulate([self._read(as_bytes(payload), out.size) for payload in payloads], weights, out)

    def accumulate_own(
        self,
        own: Bytes,
        own_weight: float,
        payloads: Sequence[Payload],
        weights: Sequence[float],
        out: Vector,
    ) -> None:
        """As ``Compressor.accumulate_own``; codes and scales of ``own`` are not looked at before."""
        check_vector("out", out)
        check_weights([own_weight, *weights], [own, *payloads])
        _accumulate(self._read_all(own, payloads, out.size), [own_weight, *weights], out)

    def absorb_difference(
        self,
        own: Bytes,
        own_weight: float,
        payloads: Sequence[Payload],
        weights: Sequence[float],
        state: tuple[Vector, Vector, Vector],
        gamma: float,
    ) -> None:
        """End a round of CHOCO in one pass: see ``kernels.choco_absorb``.

        Args:
            own: this round's payload as ``encode_difference_into`` wrote it; it is trusted.
            own_weight: its weight.
            payloads: what arrived.
            weights: one for each.
            state: the vectors x, estimate and mixed, updated.
            gamma: consensus step size.

        Raises:
            FrameError: one of ``payloads`` is no payload of this compressor; the state is unchanged.
            ValueError: a number or a length does not fit; the state is unchanged.
        """
        x, estimate, mixed = state
        bodies = self._read_all(own, payloads, x.size)
        weights = [own_weight, *weights]
        check_weights(weights, bodies)
        codec, block = bodies[0].codec, bodies[0].block
        if any((body.codec, body.block) != (codec, block) for body in bodies):
            _accumulate(bodies, weights, mixed)
            _accumulate(bodies[:1], [1.0], estimate)
            kernels.mix([x, mixed, estimate], [1.0, gamma, -gamma], out=x)
            return
        codes, scales = [body.codes for body in bodies], [body.scales for body in bodies]
        kernels.choco_absorb(x, estimate, mixed, gamma, codes, scales, weights, codec, block)

    def check(self, payload: Payload, n: int) -> None:
        """As ``Compressor.check``, without decoding."""
        self._read(as_bytes(payload), n)

    def sqdist(self, payload: Payload, x: Vector) -> float:
        """As ``Compressor.sqdist``, in one pass that writes nothing."""
        check_vector("x", x)
        body = self._read(as_bytes(payload), x.size)
        return kernels.quant_sqdist(body.codes, body.scales, x, body.codec, body.block)

    def sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """As ``Compressor.sqdists``, of codes that are integers."""
        mine, *others = self._read_all(own, payloads, n)
        if mine.codec not in kernels.INTEGER_CODECS or any(body[:2] != mine[:2] for body in others):
            return None
        codes, scales = _parts(others)
        return kernels.quant_sqdists(mine.codes, mine.scales, codes, scales, n, mine.codec, mine.block)

    def pair_sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """As ``Compressor.pair_sqdists``, of codes that are integers."""
        if len(payloads) >= kernels.MOST_PAIRED:
            return None
        all_of = self._read_all(own, payloads, n)
        codec, block = all_of[0][:2]
        if codec not in kernels.INTEGER_CODECS or any(body[:2] != (codec, block) for body in all_of):
            return None
        return kernels.quant_pair_sqdists(*_parts(all_of), n, codec, block)

    def _start(self, out: Bytes, n: int) -> tuple[Bytes, _Body]:
        """Write the header; return the payload and where scales and codes go."""
        payload = room(out, self.max_bytes(n), n)
        write_header(payload, self.wire_id, self.parameter, n)
        return payload, _split(payload, self.codec, self.block, n)

    def _encode(self, x: Vector, residual: Vector | None, body: _Body) -> int:
        return kernels.quant_encode(
            x, body.codes, body.scales, body.codec, body.block, residual=residual, key=self.key
        )

    @classmethod
    def _read_parameters(cls, payload: Bytes, n: int | None) -> tuple[Codec, int]:
        parameter, _ = read_header(payload, cls.wire_id, cls.name, n)
        codec, block = cls.read_parameter(parameter)
        group = kernels.quant_group(codec)
        if not group <= block <= MAX_BLOCK or block % group:
            raise FrameError(
                f"{cls.name} payload has block {block}, not a multiple of {group} in {group}..{MAX_BLOCK}"
            )
        return codec, block

    @classmethod
    def _read_all(cls, own: Bytes, payloads: Sequence[Payload], n: int) -> list[_Body]:
        """Views of all, the own one first; of that only header and length are checked."""
        return [cls._view(own, n), *(cls._read(as_bytes(payload), n) for payload in payloads)]

    @classmethod
    def _view(cls, payload: Bytes, n: int) -> _Body:
        """Check header and length and return views of scales and codes."""
        codec, block = cls._read_parameters(payload, n)
        check_length(payload, _payload_bytes(codec, block, n), cls.name)
        return _split(payload, codec, block, n)

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        body = cls._view(payload, n)
        codec, block = body.codec, body.block
        if faults := kernels.quant_check(body.codes, body.scales, n, codec, block):
            what = "a scale that is negative, not finite or too large"
            if faults & kernels.BAD_CODE:
                what = "a code that no encoder makes"
            elif faults & kernels.BAD_PADDING:
                what = "bits after the last element that are not 0"
            raise FrameError(f"{cls.name} payload has {what}")
        return body


@dataclass(frozen=True)
class IntQuantiser(Quantiser):
    """Signed integers -L..L, code = x / scale rounded; scale = max|x| / L of the block.

    To nearest, every element is off by at most half a scale: biased, so use error feedback or difference
    compression. With m = min(block, n) - 1 elements beside the largest, delta = 4 L^2 / (4 L^2 + m).

    At random (rounding=stochastic), up with the probability of the fraction: unbiased, to 2^-14 of a scale.
    An element at fraction f is off by f (1 - f) scales squared in expectation, which against the norm gives
    variance omega = (sqrt(1 + m / L^2) - 1) / 2, and delta = 1 - omega where omega < 1. Random numbers come
    from ``draw_key``, one for each element: see ``Compressor.keyed``.

    (Blocks whose max|x| is below 1e-36, where scales are denormal, can be worse.) NaN and infinity are
    refused.
    """

    block: int = 256
    rounding: Rounding = "nearest"
    draw_key: int = 0

    def __post_init__(self) -> None:
        check_block(self.block, self.codec)
        if self.rounding not in ("nearest", "stochastic"):
            raise ConfigError(f"rounding must be nearest or stochastic, got {self.rounding!r}")
        if not 0 <= self.draw_key < 1 << 64:
            raise ConfigError(f"draw_key must be in 0..2^64 - 1, got {self.draw_key}")

    @property
    def codec(self) -> Codec:
        """Named like the compressor."""
        return self.name  # type: ignore[return-value]  # int8, int4 and int2 are codecs

    @property
    def key(self) -> int | None:
        """draw_key if codes are rounded at random."""
        return self.draw_key if self.rounding == "stochastic" else None

    def keyed(self: _Keyed, key: int) -> _Keyed:
        """The same, drawing from ``key``; itself if it rounds to nearest."""
        return replace(self, draw_key=key) if self.rounding == "stochastic" else self

    def delta(self, n: int) -> float:
        """See the class; 0 if rounding at random has variance 1 or more.

        To nearest: per block, m elements err by at most s / 2 and by no more than their magnitude, and one
        has magnitude L s: the ratio of squared error to squared norm is largest when all m are s / 2.
        """
        if self.rounding == "stochastic":
            return max(0.0, 1.0 - self._omega(n))
        top = kernels.TOP_LEVEL[self.codec]
        return float(4 * top**2 / (4 * top**2 + max(0, min(self.block, n) - 1)))

    def variance(self, n: int) -> float | None:
        """Omega of the class if rounding is stochastic.

        The ratio m f (1 - f) / (L^2 + m f^2) is largest at f = 1 / (1 + sqrt(1 + m / L^2)).
        """
        return self._omega(n) if self.rounding == "stochastic" else None

    def _omega(self, n: int) -> float:
        top = kernels.TOP_LEVEL[self.codec]
        return float((np.sqrt(1 + max(0, min(self.block, n) - 1) / top**2) - 1) / 2)

    @classmethod
    def from_payload(cls, payload: Payload) -> IntQuantiser:
        """Block size as in the header. How codes were rounded is not in a payload: to nearest."""
        return cls(cls._read_parameters(as_bytes(payload), None)[1])

    @classmethod
    def read_parameter(cls, parameter: int) -> tuple[Codec, int]:
        """The parameter is the block."""
        return cls.name, parameter  # type: ignore[return-value]  # as in ``codec``


def check_block(block: int, codec: Codec) -> None:
    """Raise ConfigError unless the block is a whole number of the codec's groups and not too large."""
    group = kernels.quant_group(codec)
    if not group <= block <= MAX_BLOCK or block % group:
        raise ConfigError(f"block must be a multiple of {group} in {group}..{MAX_BLOCK}, got {block}")


def _accumulate(bodies: Sequence[_Body], weights: Sequence[float], out: Vector) -> None:
    """In order, one pass for each run of equal parameters: rounding after every addition allows that."""
    for (codec, block), group in itertools.groupby(
        zip(bodies, weights, strict=True), lambda pair: (pair[0].codec, pair[0].block)
    ):
        same = list(group)
        kernels.quant_accumulate(
            [body.codes for body, _ in same],
            [body.scales for body, _ in same],
            [weight for _, weight in same],
            out,
            codec,
            block,
        )


def _parts(bodies: Sequence[_Body]) -> tuple[list[Bytes], list[Vector]]:
    """Codes and scales."""
    return [body.codes for body in bodies], [body.scales for body in bodies]


def _payload_bytes(codec: Codec, block: int, n: int) -> int:
    return HEADER_BYTES + 4 * kernels.quant_blocks(n, block) + kernels.quant_bytes(codec, n)


def _split(payload: Bytes, codec: Codec, block: int, n: int) -> _Body:
    """Views of scales and codes; nothing is checked."""
    codes_at = HEADER_BYTES + 4 * kernels.quant_blocks(n, block)
    return _Body(codec, block, payload[HEADER_BYTES:codes_at].view(np.float32), payload[codes_at:])


def _refusal(name: str, a: Vector) -> ValueError:
    """Why a vector was not encoded."""
    if bad := kernels.count_nonfinite(a):
        return nonfinite(name, bad, a.size)
    return ValueError(
        f"{name} cannot encode magnitudes as large as {np.abs(a).max():.7g}: they would decode to infinity"
    )
