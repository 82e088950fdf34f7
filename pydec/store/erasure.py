"""Reed-Solomon codes: a chunk becomes k data and m parity fragments, and any k of them give it back.

A chunk is cut into k pieces of ceil(length / k) bytes, the last filled up with zeros. Parity fragment i is
the sum over j of inverse((k + i) xor j) times piece j, byte by byte in the field of 256 elements with the
polynomial x^8 + x^4 + x^3 + x^2 + 1: a Cauchy matrix, all of whose square parts can be inverted. So the bytes
of a fragment follow from the chunk alone, whoever computes them. With pyeclib ISA-L computes them, at GB/s;
without it NumPy does, a hundred times slower.

Source: Blomer et al., "An XOR-Based Erasure-Resilient Coding Scheme", ICSI TR-95-048, 1995; the matrix is
``gf_gen_cauchy1_matrix`` of https://github.com/intel/isa-l.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.disk import Buffer

MOST_FRAGMENTS = 32
Bytes = NDArray[np.uint8]


class Code:
    """The code of k data and m parity fragments.

    Args:
        data, parity: k and m, 1 or more each, and ``MOST_FRAGMENTS`` together at most.
        library: False computes in NumPy.

    Raises:
        ValueError: no such code.
    """

    def __init__(self, data: int, parity: int, library: bool = True) -> None:
        if data < 1 or parity < 1 or data + parity > MOST_FRAGMENTS:
            raise ValueError(
                f"erasure coding needs 1 or more data and parity fragments, at most {MOST_FRAGMENTS} "
                f"together, got {data}+{parity}"
            )
        self.data, self.parity = data, parity
        self._driver = _driver(data, parity) if library else None

    @property
    def fragments(self) -> int:
        """k + m."""
        return self.data + self.parity

    def fragment_bytes(self, n_bytes: int) -> int:
        """Length of each fragment of a chunk."""
        return -(-n_bytes // self.data)

    def __str__(self) -> str:
        """Such as 4+2."""
        return f"{self.data}+{self.parity}"

    def encode(self, chunk: Buffer) -> list[bytes]:
        """The fragments of a chunk of 1 or more bytes, data first."""
        if self._driver is not None:
            head = len(self._heads(1)[0])
            return [fragment[head:] for fragment in self._driver.encode(bytes(chunk))]
        pieces = np.zeros((self.data, self.fragment_bytes(len(chunk))), np.uint8)
        pieces.reshape(-1)[: len(chunk)] = np.frombuffer(chunk, np.uint8)
        coded = np.concatenate([pieces, _times(_cauchy(self.data, self.parity), pieces)])
        return [row.tobytes() for row in coded]

    def decode(self, found: Mapping[int, Buffer], n_bytes: int) -> bytes:
        """A chunk of ``n_bytes`` from k or more of its fragments, by number.

        Raises:
            ValueError: fragments that are fewer, or of another length.
        """
        size = self.fragment_bytes(n_bytes)
        numbers = sorted(found)[: self.data]
        if len(numbers) < self.data or any(len(found[number]) != size for number in numbers):
            raise ValueError(
                f"{self.data} fragments of {size} bytes are needed, got {len(found)} of "
                f"{sorted({len(fragment) for fragment in found.values()})} bytes"
            )
        if numbers[-1] < self.data:
            return b"".join(found[number] for number in numbers)[:n_bytes]  # needs no arithmetic
        if self._driver is not None:
            heads = self._heads(n_bytes)
            return bytes(self._driver.decode([heads[n] + bytes(found[n]) for n in numbers]))
        matrix = np.concatenate([np.eye(self.data, dtype=np.uint8), _cauchy(self.data, self.parity)])
        rows = np.stack([np.frombuffer(found[number], np.uint8) for number in numbers])
        return _times(_inverse(matrix[numbers]), rows).tobytes()[:n_bytes]

    def _heads(self, n_bytes: int) -> list[bytes]:
        """What pyeclib puts before the fragments of any chunk of that length."""
        return _heads_of(self.data, self.parity, n_bytes)


@cache
def _driver(data: int, parity: int) -> Any:
    """pyeclib's, if it is installed with ISA-L."""
    try:
        from pyeclib.ec_iface import ECDriver, ECDriverError
    except ImportError:
        return None
    try:
        return ECDriver(k=data, m=parity, ec_type="isa_l_rs_cauchy")
    except ECDriverError:
        return None


@lru_cache(64)
def _heads_of(data: int, parity: int, n_bytes: int) -> list[bytes]:
    fragments = _driver(data, parity).encode(bytes(n_bytes))
    return [fragment[: len(fragment) - -(-n_bytes // data)] for fragment in fragments]


@cache
def _tables() -> tuple[Bytes, NDArray[np.int64]]:
    """Powers of the generator 2, twice over, and the exponent of each number but 0."""
    powers, exponents, power = np.zeros(510, np.uint8), np.zeros(256, np.int64), 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = power
        exponents[power] = exponent
        power = power << 1 ^ (0x11D if power & 0x80 else 0)
    return powers, exponents


def _multiples(factor: int) -> Bytes:
    """factor times each number."""
    powers, exponents = _tables()
    found = powers[exponents[factor] + exponents] if factor else np.zeros(256, np.uint8)
    found[0] = 0
    return found


def _reciprocal(number: int) -> int:
    powers, exponents = _tables()
    return int(powers[255 - exponents[number]])


@cache
def _cauchy(data: int, parity: int) -> Bytes:
    """Parity fragments of the pieces, shape (parity, data)."""
    rows = [[_reciprocal((data + i) ^ j) for j in range(data)] for i in range(parity)]
    return np.array(rows, np.uint8)


def _times(matrix: Bytes, rows: Bytes) -> Bytes:
    """The product of matrices over the field."""
    out = np.zeros((len(matrix), rows.shape[1]), np.uint8)
    for i, factors in enumerate(matrix.tolist()):
        for factor, row in zip(factors, rows, strict=True):
            if factor:
                out[i] ^= _multiples(factor)[row]
    return out


def _inverse(matrix: Bytes) -> Bytes:
    """By Gauss and Jordan; a part of these matrices always has one."""
    size = len(matrix)
    work = np.concatenate([matrix, np.eye(size, dtype=np.uint8)], axis=1)
    for column in range(size):
        pivot = column + int(np.flatnonzero(work[column:, column])[0])
        work[[column, pivot]] = work[[pivot, column]]
        work[column] = _multiples(_reciprocal(int(work[column, column])))[work[column]]
        for row in range(size):
            if row != column and work[row, column]:
                work[row] ^= _multiples(int(work[row, column]))[work[column]]
    return work[:, size:]
