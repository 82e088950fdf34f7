"""A reader's keys: those of the manifest and no others, each for its generation."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec.crypto.keyring import MOST_GENERATIONS, Keyring, Lock
from pydec.crypto.vault import BadChunk, DatasetKey
from pydec.errors import AccessDenied, FrameError

ROOT, READER = bytes([5]) * 32, bytes([9]) * 32
FIRST = DatasetKey(bytes([7]) * 32, bytes(range(32)))
SECOND = DatasetKey(bytes([8]) * 32, bytes(range(32)), 1)
LOCK = Lock.of([SECOND, FIRST])


def test_a_lock_has_one_encoding():
    data = LOCK.encode()
    assert Lock.decode(data) == LOCK
    assert len(data) == 37 + 2 * 36
    assert FIRST.reveal() not in data
    for wrong in (b"", data[:36], data[:-1], data + b"\0", b"\2" + data[1:], data[:33] + bytes(4)):
        with pytest.raises(FrameError):
            Lock.decode(wrong)
    many = Lock(FIRST.dataset, {n: bytes(32) for n in range(MOST_GENERATIONS)})
    assert Lock.decode(many.encode()) == many
    assert len(many.encode()) <= 4096
    swapped = data[:37] + data[73:] + data[37:73]
    with pytest.raises(FrameError, match=r"increase, got \[1, 0\]"):
        Lock.decode(swapped)
    for keys in ([], [FIRST, FIRST], [FIRST, DatasetKey(bytes(32), bytes(32), 1)]):
        with pytest.raises(ValueError, match="of one data set"):
            Lock.of(keys)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 110))
def test_any_bytes_are_a_lock_of_one_encoding_or_refused(data, kept):
    data = LOCK.encode()[:kept] + data
    try:
        found = Lock.decode(data)
    except FrameError:
        return
    assert found.encode() == data


def test_chunks_open_with_the_key_of_their_generation():
    ring = Keyring(ROOT, READER, LOCK, [SECOND, FIRST])
    ring.check_complete()
    assert (list(ring), len(ring)) == ([0, 1], 2)
    for index, key in enumerate((FIRST, SECOND)):
        sealed = key.encrypt_chunk(index, b"sensitive")
        assert ring.decrypt_chunk(index, sealed) == b"sensitive"
        room = bytearray(9)
        assert ring.decrypt_chunk_into(index, sealed, room) == 9
        assert room == b"sensitive"
        with pytest.raises(BadChunk, match="misplaced"):
            ring.decrypt_chunk(7, sealed)


def test_a_key_that_was_not_granted_is_named():
    ring = Keyring(ROOT, READER, LOCK, [FIRST])
    words = f"{READER.hex()[:16]} may not read the data set {ROOT.hex()[:16]}: it needs .* generation 1"
    with pytest.raises(AccessDenied, match=words):
        ring.check_complete()
    with pytest.raises(AccessDenied, match=words):
        ring.decrypt_chunk(0, SECOND.encrypt_chunk(0, b"sensitive"))


def test_a_key_that_is_not_the_manifests_is_refused():
    """An owner cannot give its readers different data under one root."""
    wrong = DatasetKey(bytes([1]) * 32, FIRST.dataset)
    with pytest.raises(FrameError, match=r"generation 0, that .* was granted is not the one"):
        Keyring(ROOT, READER, LOCK, [wrong])


def test_keys_are_neither_shown_nor_stored_nor_copied():
    ring = Keyring(ROOT, READER, LOCK, [FIRST, SECOND])
    assert FIRST.reveal().hex() not in repr(ring)
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor stored"):
            store(ring)
