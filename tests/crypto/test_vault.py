"""Chunks at rest: what was sealed comes out in its place alone, and no key and nonce seal two contents."""

from __future__ import annotations

import copy
import os
import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec.crypto import vault
from pydec.crypto.vault import HEADER_BYTES, OVERHEAD_BYTES, BadChunk, DatasetKey, generation_of
from pydec.errors import FrameError

DATASET = bytes(range(32))
KEY = DatasetKey(bytes([7]) * 32, DATASET, 3)
TEXT = os.urandom(1000)


def refuses(kind, index, sealed, key=KEY):
    with pytest.raises(BadChunk) as caught:
        key.decrypt_chunk(index, sealed)
    assert caught.value.kind == kind, caught.value
    assert isinstance(caught.value, FrameError)
    return str(caught.value)


def same_bytes(one, other):
    """How many of the bytes behind the headers are alike."""
    return sum(a == b for a, b in zip(one[HEADER_BYTES:], other[HEADER_BYTES:], strict=False))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("n_bytes", [0, 1, 15, 16, 17, 1000, 100_001])
def test_chunks_of_any_size_come_out_as_they_went_in(n_bytes, fresh):
    text = os.urandom(n_bytes)
    sealed = KEY.encrypt_chunk(5, text, fresh=fresh)
    assert len(sealed) == n_bytes + OVERHEAD_BYTES
    assert n_bytes < 16 or text[:16] not in sealed
    assert KEY.decrypt_chunk(5, sealed) == text
    assert generation_of(sealed) == 3
    room, plain = bytearray(len(sealed) + 9), bytearray(n_bytes + 9)
    assert KEY.encrypt_chunk_into(5, memoryview(text), room, fresh=fresh) == len(sealed)
    assert KEY.decrypt_chunk_into(5, memoryview(room)[: len(sealed)], plain) == n_bytes
    assert plain == text + bytes(9)


def test_another_process_with_the_key_opens_it():
    sealed = DatasetKey(bytes([7]) * 32, DATASET, 3).encrypt_chunk(0, TEXT)
    assert KEY.decrypt_chunk(0, sealed) == TEXT


def test_the_format_stays_as_it_is():
    """What is on disks must stay readable: this chunk is of the first version."""
    sealed = KEY.encrypt_chunk(9, b"hello")
    head = b"pdv1" + struct.pack("<IQI", 3, 9, 5) + KEY.check[:12]
    assert sealed[:32] == head
    assert sealed.hex()[64:128] == "497ed25b56f0df090406701fce664184ca22c15613e70282a01aeee125d52383"
    assert sealed.hex()[128:] == "6b7a3be5b6a63d7b26e17c86f6f19dca51ca0415b2"
    assert KEY.check.hex() == "2215622a9693ac77e112aaad2549e804d5a8e5ea7091aee0b675551b25f46080"


def test_adding_the_same_again_makes_the_same_bytes():
    """So an add that was killed goes on, and nothing is stored twice."""
    assert KEY.encrypt_chunk(1, TEXT) == KEY.encrypt_chunk(1, bytearray(TEXT))
    assert KEY.encrypt_chunk(1, TEXT, fresh=True) != KEY.encrypt_chunk(1, TEXT, fresh=True)


def test_no_key_and_nonce_seal_two_contents(monkeypatch):
    """Other data in the same place after a crash, the same in other places, generations and sets."""
    used: dict[tuple[bytes, bytes], bytes] = {}

    class Recorder:
        def __init__(self, suite, key):
            self._key, self._tool = key, real(suite, key)

        def encrypt_into(self, nonce, content, bound, out):
            seen = used.setdefault((self._key, nonce), bytes(content) + bytes(bound))
            assert seen == bytes(content) + bytes(bound)
            return self._tool.encrypt_into(nonce, content, bound, out)

    real = vault.cipher
    monkeypatch.setattr(vault, "cipher", Recorder)
    sets = [DatasetKey(bytes([7]) * 32, DATASET, n) for n in range(2)]
    sets += [DatasetKey(bytes([7]) * 32, bytes(32)), DatasetKey(bytes([8]) * 32, DATASET)]
    contents = [bytes(64), bytes(63), b"\1" + bytes(63), bytes(63) + b"\1"]
    for _ in range(2):  # again, as after a crash
        for key in sets:
            for index in (0, 1, 1 << 40):
                for content in contents:
                    key.encrypt_chunk(index, content)
                    key.encrypt_chunk(index, content, fresh=True)
    places = len(sets) * 3 * len(contents)
    assert len(used) == places + 2 * places


def test_equal_chunks_in_other_places_do_not_look_alike():
    sealed = [KEY.encrypt_chunk(index, bytes(4096)) for index in range(3)]
    sealed.append(KEY.successor().encrypt_chunk(0, bytes(4096)))
    for one in range(4):
        for other in range(one):
            assert same_bytes(sealed[one], sealed[other]) < 100  # 16 are expected by chance


def test_all_bytes_of_a_chunk_are_authenticated():
    sealed = KEY.encrypt_chunk(5, TEXT[:70])
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1 << place % 8
        with pytest.raises(BadChunk):
            KEY.decrypt_chunk(5, changed)


def test_refusals_name_the_chunk_and_what_is_wrong():
    sealed = KEY.encrypt_chunk(5, TEXT)
    who = f"chunk 5 of data set {DATASET.hex()[:16]}, generation 3"
    assert f"{who} held 1000 bytes, and 400 are there" in refuses("truncated", 5, sealed[:480])
    assert f"{who} held 1000 bytes, and 1001 are there" in refuses("truncated", 5, sealed + b"\0")
    assert "chunk 5 has 79 bytes" in refuses("truncated", 5, sealed[:79])
    assert "chunk 5 has 0 bytes" in refuses("truncated", 5, b"")
    assert f"{who} is chunk 6" in refuses("misplaced", 5, KEY.encrypt_chunk(6, TEXT))
    assert f"{who} is not what was sealed" in refuses("forged", 5, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert "begins with 00000000" in refuses("forged", 5, bytes(200))
    following = KEY.successor()
    assert "key of generation 4" in refuses("foreign", 5, following.encrypt_chunk(5, TEXT))
    assert "key of generation 3" in refuses("foreign", 5, sealed, following)
    refuses("foreign", 5, sealed, DatasetKey(bytes([8]) * 32, DATASET, 3))
    refuses("foreign", 5, sealed, DatasetKey(bytes([7]) * 32, bytes(32), 3))


def test_a_chunk_with_the_header_of_another_place_is_forged():
    """The header is only what a chunk says of itself; what counts is that the key agrees."""
    for at, what in ((8, struct.pack("<Q", 6)), (4, struct.pack("<I", 4))):
        key = KEY if at == 8 else DatasetKey(bytes([7]) * 32, DATASET, 4)
        changed = bytearray(KEY.encrypt_chunk(5, TEXT))
        changed[at : at + len(what)] = what
        changed[20:32] = key.check[:12]
        refuses("forged", 6 if at == 8 else 5, changed, key)


def test_a_cut_chunk_with_the_length_put_right_is_forged():
    changed = bytearray(KEY.encrypt_chunk(5, TEXT)[:-100])
    changed[16:20] = struct.pack("<I", 900)
    refuses("forged", 5, changed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_refused_by_name(data, headed):
    """Also those that begin as a chunk of this key and place does."""
    sealed = KEY.encrypt_chunk(5, TEXT[:16])[: 40 if headed else 0] + data
    with pytest.raises(BadChunk):
        KEY.decrypt_chunk(5, sealed)


def test_generations_are_of_unrelated_keys():
    following = KEY.successor()
    assert (following.dataset, following.generation) == (DATASET, 4)
    assert following.reveal() != KEY.reveal()
    assert KEY.successor().reveal() != following.reveal()


def test_a_key_is_neither_shown_nor_stored_nor_copied():
    shown = repr(KEY) + str(KEY)
    assert KEY.reveal().hex() not in shown
    assert repr(KEY.reveal())[2:-1] not in shown
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor stored"):
            store(KEY)
    assert not hasattr(KEY, "__dict__")


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="32 and 32 bytes, got 31 and 32"):
        DatasetKey(bytes(31), DATASET)
    with pytest.raises(ValueError, match="got -1"):
        DatasetKey(bytes(32), DATASET, -1)
    with pytest.raises(ValueError, match="chunk -1 of 4 bytes"):
        KEY.encrypt_chunk(-1, b"four")
    with pytest.raises(ValueError, match="needs 84 bytes when sealed, got room for 83"):
        KEY.encrypt_chunk_into(0, b"four", bytearray(83))
    with pytest.raises(ValueError, match="holds 4 bytes, got room for 3"):
        KEY.decrypt_chunk_into(0, KEY.encrypt_chunk(0, b"four"), bytearray(3))
    with pytest.raises(BadChunk, match="79 bytes"):
        generation_of(bytes(79))
    with pytest.raises(BadChunk, match="begins with"):
        generation_of(bytes(80))
