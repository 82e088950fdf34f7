"""Wrapped keys open for their reader and purpose alone; the library's HPKE is that of the standard."""

from __future__ import annotations

import os

import pytest

from pydec.consensus.transactions import MOST_GRANT_BYTES
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import DatasetKey
from pydec.crypto.wrapping import WRAPPED_BYTES, BadWrapping, unwrap, unwrap_key, wrap, wrap_key
from pydec.errors import FrameError, SignatureError

READER, OTHER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
SECRET = bytes(range(32))
ROOT, DATASET = bytes([5]) * 32, bytes([6]) * 32
KEY = DatasetKey(SECRET, DATASET, 3)


def test_a_wrapped_key_opens_for_its_reader_alone():
    wrapped = wrap(SECRET, READER.public, b"why")
    assert len(wrapped) == WRAPPED_BYTES <= MOST_GRANT_BYTES
    assert unwrap(wrapped, READER, b"why") == SECRET
    assert SECRET not in wrapped
    with pytest.raises(BadWrapping, match=OTHER.public.hex()[:16]):
        unwrap(wrapped, OTHER, b"why")
    with pytest.raises(BadWrapping, match="another reader, data set or generation"):
        unwrap(wrapped, READER, b"why else")


def test_it_looks_different_every_time():
    assert len({wrap(SECRET, READER.public, b"")[at:][:32] for at in (0, 32, 48) for _ in range(3)}) == 9


def test_every_flipped_bit_is_refused():
    """That which X25519 ignores (RFC 7748, section 5), too: the key schedule hashes all of it."""
    wrapped = wrap(SECRET, READER.public, b"why")
    for bit in range(8 * WRAPPED_BYTES):
        changed = bytearray(wrapped)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadWrapping):
            unwrap(bytes(changed), READER, b"why")


@pytest.mark.parametrize("n_bytes", [0, 1, 32, WRAPPED_BYTES - 1, WRAPPED_BYTES + 1, 512])
def test_another_length_is_refused(n_bytes):
    with pytest.raises(BadWrapping, match=f"has {n_bytes}$"):
        unwrap(bytes(n_bytes), READER, b"why")


@pytest.mark.parametrize(
    "point", [0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504]
)
def test_an_ephemeral_key_of_small_order_is_refused(point):
    """Orders 4, 1 and 8; RFC 9180, section 7.1.4, wants the shared secret checked."""
    with pytest.raises(BadWrapping):
        unwrap(point.to_bytes(32, "little") + bytes(WRAPPED_BYTES - 32), READER, b"why")


@pytest.mark.parametrize("grantee", [bytes(32), b"\1" + bytes(31), b"\xff" * 32, bytes(31), b""])
def test_nothing_is_wrapped_for_a_key_that_nobody_can_hold(grantee):
    """Of small order, no point, or of another length: whoever listens could open it."""
    with pytest.raises(SignatureError, match="nothing was wrapped"):
        wrap(SECRET, grantee, b"why")


def test_a_secret_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        wrap(bytes(31), READER.public, b"why")


def test_a_data_sets_key_is_bound_to_data_set_generation_and_reader():
    wrapped = wrap_key(KEY, ROOT, READER.public)
    key = unwrap_key(wrapped, READER, ROOT, 3, DATASET)
    assert (key.reveal(), key.check, key.generation) == (SECRET, KEY.check, 3)
    sealed = KEY.encrypt_chunk(0, b"sensitive")
    assert key.decrypt_chunk(0, sealed) == b"sensitive"
    for reader, root, generation in ((OTHER, ROOT, 3), (READER, DATASET, 3), (READER, ROOT, 4)):
        with pytest.raises(BadWrapping):
            unwrap_key(wrapped, reader, root, generation, DATASET)
    assert issubclass(BadWrapping, FrameError)


def test_any_reader_can_be_granted_something():
    """The two forms of a key are one: what is wrapped for the public one opens with the secret one."""
    for _ in range(20):
        reader = SigningKey(os.urandom(32))
        assert unwrap(wrap(SECRET, reader.public, b""), reader, b"") == SECRET
