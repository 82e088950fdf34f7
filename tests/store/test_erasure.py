"""Codes: any k fragments give the chunk back, and NumPy and ISA-L compute the same bytes."""

from __future__ import annotations

import itertools
import random

import pytest

from pydec.store import erasure
from pydec.store.erasure import Code

SHAPES = [(1, 1), (2, 1), (3, 2), (4, 2), (10, 4)]


@pytest.fixture(params=[False, True], ids=["numpy", "pyeclib"])
def library(request):
    if request.param:
        pytest.importorskip("pyeclib")
    return request.param


@pytest.mark.parametrize("n_bytes", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("shape", SHAPES[:4])
def test_any_fragments_as_many_as_data_give_the_chunk(library, shape, n_bytes):
    code, chunk = Code(*shape, library), random.Random(n_bytes).randbytes(n_bytes)
    fragments = code.encode(chunk)
    assert [len(f) for f in fragments] == [code.fragment_bytes(n_bytes)] * code.fragments
    for chosen in itertools.combinations(range(code.fragments), code.data):
        assert code.decode({n: fragments[n] for n in chosen}, n_bytes) == chunk


@pytest.mark.parametrize("shape", SHAPES)
def test_the_library_and_numpy_agree(shape):
    pytest.importorskip("pyeclib")
    rng = random.Random(5)
    for n_bytes in (1, 13, 4096, 100_001):
        chunk = rng.randbytes(n_bytes)
        assert Code(*shape).encode(memoryview(chunk)) == Code(*shape, False).encode(memoryview(chunk))


def test_parity_is_what_the_documentation_says():
    def product(a: int, b: int) -> int:
        found = 0
        while b:
            found ^= a if b & 1 else 0
            a, b = a << 1 ^ (0x11D if a & 0x80 else 0), b >> 1
        return found

    rows = [bytes([n]) for n in (3, 200, 77)]
    fragments = Code(3, 2, False).encode(b"".join(rows))
    for i in range(2):
        expected = 0
        for j, row in enumerate(rows):
            inverse = next(x for x in range(256) if product(x, (3 + i) ^ j) == 1)
            expected ^= product(inverse, row[0])
        assert fragments[3 + i] == bytes([expected])


def test_too_few_fragments_or_wrong_ones_are_refused(library):
    code = Code(4, 2, library)
    fragments = dict(enumerate(code.encode(bytes(100))))
    with pytest.raises(ValueError, match="4 fragments of 25 bytes are needed, got 3"):
        code.decode({n: fragments[n] for n in (0, 2, 5)}, 100)
    with pytest.raises(ValueError, match="are needed"):
        code.decode({**fragments, 1: b"short"}, 100)


@pytest.mark.parametrize("shape", [(0, 1), (4, 0), (30, 3)])
def test_codes_that_cannot_be_are_refused(shape):
    with pytest.raises(ValueError, match="1 or more data and parity fragments, at most 32 together"):
        Code(*shape)


def test_without_the_library_numpy_computes(monkeypatch):
    monkeypatch.setattr(erasure, "_driver", lambda data, parity: None)
    code = Code(4, 2)
    fragments = code.encode(b"abcdefghij")
    assert code.decode({n: fragments[n] for n in (1, 2, 4, 5)}, 10) == b"abcdefghij"
