"""Merkle roots against the recursive definition of RFC 9162, and what they must tell apart."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from pydec.crypto.hashing import bytes_root, file_root, merkle_root, sha256
from pydec.errors import SetupError


def by_definition(chunks: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if not chunks:
        return blake3(b"").digest()
    if len(chunks) == 1:
        return blake3(b"\x00" + chunks[0]).digest()
    k = 1 << (len(chunks) - 1).bit_length() - 1
    return blake3(b"\x01" + by_definition(chunks[:k]) + by_definition(chunks[k:])).digest()


@pytest.mark.parametrize("n", [*range(18), 31, 32, 33, 100])
def test_roots_are_those_of_the_definition(n):
    chunks = [bytes([i]) * (i + 1) for i in range(n)]
    assert merkle_root(chunks) == by_definition(chunks)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 95])
def test_files_and_memory_have_the_same_root(size, tmp_path):
    data = bytes(range(size))
    (tmp_path / "data").write_bytes(data)
    root = by_definition([data[at : at + 10] for at in range(0, size, 10)])
    assert bytes_root(data, 10) == bytes_root(bytearray(data), 10) == file_root(tmp_path / "data", 10) == root


def test_an_array_is_hashed_as_its_bytes():
    import numpy as np

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert bytes_root(x.data, 16) == bytes_root(x.tobytes(), 16)


def test_a_node_does_not_pass_as_a_chunk():
    a, b = (blake3(b"\x00" + chunk).digest() for chunk in (b"a", b"b"))
    assert merkle_root([a + b]) != merkle_root([b"a", b"b"])
    assert merkle_root([b"a", b"b"]) != merkle_root([b"ab"]) != merkle_root([b"b", b"a"])


def test_sha256_is_that_of_the_joined_parts():
    assert sha256(b"a", b"", b"bc") == hashlib.sha256(b"abc").digest()


def test_bad_input_is_named(tmp_path):
    with pytest.raises(SetupError, match=r"cannot hash .*none: No such file"):
        file_root(tmp_path / "none")
    for root in (lambda: bytes_root(b"", 0), lambda: file_root(tmp_path, 0)):
        with pytest.raises(ValueError, match="chunk_bytes=0"):
            root()
