"""Compression that can be switched off from one payload to the next: every payload says what it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pydec.compress.base import Bytes, Compressor, Payload, Vector, compressors
from pydec.compress.none import Uncompressed
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_vector,
    check_weights,
    read_header,
    room,
    wire_id_of,
    write_header,
)
from pydec.errors import ConfigError, FrameError

_PLAIN = Uncompressed()
_NAMES = ("bf16", "fp16", "int8", "int4", "sign")


@compressors.register("auto")
@dataclass(frozen=True)
class Auto(Compressor):
    """Compress only while that makes rounds faster; ``gossip.switch`` measures and decides.

    Receivers take both kinds of payload, and a sender subtracts what it sent itself, so every rank may
    decide alone, in every round anew, and the mean over the ranks is kept. This object does not measure:
    it writes what ``send`` says. What is promised (contraction, block, largest payload) holds for both.

    Payload: header (its parameter is the wire id of what follows), then a payload of ``none`` or of the
    named compressor.

    Args:
        lossy: the compressor that is switched on and off, by name: bf16, fp16, int8, int4 or sign.
        send: plain writes float32, packed compresses.
        draw_key: as in ``keyed``.
    """

    wire_id: ClassVar[int] = 16
    lossy: str = "int8"
    send: Literal["plain", "packed"] = "plain"
    draw_key: int = 0

    def __post_init__(self) -> None:
        if self.lossy not in _NAMES:
            raise ConfigError(f"auto.lossy must be one of {', '.join(_NAMES)}, got {self.lossy!r}")
        if self.send not in ("plain", "packed"):
            raise ConfigError(f"auto.send must be plain or packed, got {self.send!r}")

    @cached_property
    def packer(self) -> Compressor:
        """The compressor that is switched on and off."""
        return compressors.make(self.lossy)

    @property
    def writer(self) -> Compressor:
        """What encodes now."""
        return _PLAIN if self.send == "plain" else self.packer.keyed(self.draw_key)

    def switched(self, packed: bool) -> Auto:
        """The same, compressing or not."""
        return replace(self, send="packed" if packed else "plain")

    def keyed(self, key: int) -> Auto:
        """As ``Compressor.keyed``."""
        return self if self.packer.keyed(key) is self.packer else replace(self, draw_key=key)

    @property
    def block(self) -> int:
        """That of the compressor."""
        return self.packer.block

    def max_bytes(self, n: int) -> int:
        """16 more than the larger of both."""
        return HEADER_BYTES + max(_PLAIN.max_bytes(n), self.packer.max_bytes(n))

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """A header, and what ``writer`` encodes."""
        check_vector("x", x)
        place = room(out, HEADER_BYTES + self.writer.max_bytes(x.size), x.size)
        length = self.writer.encode_into(x, place[HEADER_BYTES:])
        write_header(place, self.wire_id, self.writer.wire_id, x.size)
        return HEADER_BYTES + length

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """By whichever of the two wrote it."""
        check_vector("out", out)
        part, body = self._open(payload, out.size)
        return part.decode(body, out)

    def delta(self, n: int) -> float:
        """That of the compressor."""
        return self.packer.delta(n)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """In order, one pass for each run of payloads of one kind."""
        check_vector("out", out)
        check_weights(weights, payloads)
        opened = [self._open(payload, out.size) for payload in payloads]
        runs = [list(run) for _, run in itertools.groupby(zip(opened, weights, strict=True), key=_kind)]
        if len(runs) > 1:  # one run checks before it writes, but does not know of the others
            for part, body in opened:
                part.check(body, out.size)
        for run in runs:
            part = run[0][0][0]
            part.accumulate([body for (_, body), _ in run], [weight for _, weight in run], out)

    def accumulate_own(
        self,
        own: Bytes,
        own_weight: float,
        payloads: Sequence[Payload],
        weights: Sequence[float],
        out: Vector,
    ) -> None:
        """As ``Compressor.accumulate_own``; trusts ``own`` where all payloads are of its kind."""
        check_vector("out", out)
        check_weights([own_weight, *weights], [own, *payloads])
        part, body = self._open(own, out.size)
        others = [self._open(payload, out.size) for payload in payloads]
        if all(other is part for other, _ in others):
            part.accumulate_own(body, own_weight, [other for _, other in others], weights, out)
        else:
            self.accumulate([own, *payloads], [own_weight, *weights], out)

    def check(self, payload: Payload, n: int) -> None:
        """Both headers and the body."""
        part, body = self._open(payload, n)
        part.check(body, n)

    def views(self, payloads: Sequence[Payload], n: int) -> list[Vector] | None:
        """As ``Compressor.views``, where none of the payloads is compressed."""
        opened = [self._open(payload, n) for payload in payloads]
        if any(part is not _PLAIN for part, _ in opened):
            return None
        return [_PLAIN.view(body, n) for _, body in opened]

    def sqdist(self, payload: Payload, x: Vector) -> float:
        """As ``Compressor.sqdist``, in one pass."""
        check_vector("x", x)
        part, body = self._open(payload, x.size)
        return part.sqdist(body, x)

    def sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """As ``Compressor.sqdists``, where all payloads are of one kind."""
        (part, mine), *others = [self._open(payload, n) for payload in (own, *payloads)]
        if any(other is not part for other, _ in others):
            return None
        return part.sqdists(mine, [body for _, body in others], n)

    def pair_sqdists(self, own: Bytes, payloads: Sequence[Payload], n: int) -> NDArray[np.float64] | None:
        """As ``Compressor.pair_sqdists``, where all payloads are of one kind."""
        (part, mine), *others = [self._open(payload, n) for payload in (own, *payloads)]
        if any(other is not part for other, _ in others):
            return None
        return part.pair_sqdists(mine, [body for _, body in others], n)

    @classmethod
    def from_payload(cls, payload: Payload) -> Auto:
        """Which compressor was used; a plain payload does not say which is switched off."""
        data = as_bytes(payload)
        inner, _ = read_header(data, cls.wire_id, "auto")
        if inner == _PLAIN.wire_id:
            return cls()
        for name in _NAMES:
            if compressors.make(name).wire_id == inner:
                return cls(lossy=name, send="packed")
        raise FrameError(f"auto payload holds wire id {inner}, which is none of {', '.join(_NAMES)}")

    def _open(self, payload: Payload, n: int) -> tuple[Compressor, Bytes]:
        """Who decodes what follows the header, and that; its body has not been looked at."""
        data = as_bytes(payload)
        inner, _ = read_header(data, self.wire_id, "auto", n)
        body = data[HEADER_BYTES:]
        for part in (_PLAIN, self.packer):
            if inner == part.wire_id == wire_id_of(body):
                return part, body
        raise FrameError(
            f"auto payload holds wire id {inner}, neither none ({_PLAIN.wire_id}) nor {self.lossy} "
            f"({self.packer.wire_id})"
        )


def _kind(pair: tuple[tuple[Compressor, Bytes], float]) -> int:
    return pair[0][0].wire_id
