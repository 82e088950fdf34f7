"""What was sealed comes out once, in its place and whole; all else is refused, and no nonce is used twice."""

from __future__ import annotations

import copy
import os
import pickle
import struct
from dataclasses import replace

import pytest

from pydec.crypto import seal
from pydec.crypto.seal import HEADER_BYTES, WINDOW, Limits, Opener, Sealer, Unsealed, Way, padded
from pydec.crypto.suites import Suite
from pydec.errors import FrameError, SetupError

WAY = Way(Suite.AES_256_GCM, 2, 7, 0, 1)
SECRET = bytes(range(32))
TEXT = bytes(range(200))
ROOM = len(TEXT)


def sealed(sealer, text=TEXT, tag=5):
    out = bytearray(sealer.size(len(text)))
    sealer.seal_into(tag, memoryview(text), memoryview(out))
    return out


def opened(opener, message, tag=5, room=ROOM):
    into = bytearray(room)
    return bytes(into[: opener.open_into(tag, memoryview(message), memoryview(into))])


def refuses(kind, opener, message, tag=5, room=ROOM):
    with pytest.raises(Unsealed) as caught:
        opened(opener, message, tag, room)
    assert caught.value.kind == kind


@pytest.fixture
def records_of_64(monkeypatch):
    monkeypatch.setattr(seal, "RECORD_BYTES", 64)


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("n_bytes", [0, 1, 63, 64, 65, 200, 1000])
def test_messages_of_any_size_come_out_as_they_went_in(records_of_64, suite, pad, n_bytes):
    way = replace(WAY, suite=suite)
    sealer, opener = Sealer(way, SECRET, pad=pad), Opener(way, SECRET)
    text = os.urandom(n_bytes)
    for tag in (5, 6, 5):
        message = sealed(sealer, text, tag)
        assert n_bytes < 16 or text not in message
        assert opened(opener, message, tag, n_bytes + 3) == text
    if n_bytes:
        with pytest.raises(FrameError, match=f"{n_bytes} bytes where at most {n_bytes - 1} fit"):
            opened(opener, sealed(sealer, text), room=n_bytes - 1)
    assert opened(opener, sealed(sealer, text), room=n_bytes) == text


def test_all_bytes_of_a_message_are_authenticated(records_of_64):
    sealer, opener = Sealer(WAY, SECRET), Opener(WAY, SECRET)
    message = sealed(sealer)
    for place in range(len(message)):
        changed = bytearray(message)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Unsealed):
            opened(opener, changed)
    assert opened(opener, message) == TEXT


def test_a_message_that_was_cut_is_refused(records_of_64):
    opener, message = Opener(WAY, SECRET), sealed(Sealer(WAY, SECRET))
    for end in (0, 1, HEADER_BYTES, len(message) - 64 - 16, len(message) - 1):
        refuses("truncated", opener, message[:end])
    refuses("truncated", opener, message + b"\0")
    shorter = bytearray(message[: HEADER_BYTES + 2 * (64 + 16)])  # whole records, and a length that fits them
    struct.pack_into("<Q", shorter, 32, 128)
    refuses("forged", opener, shorter)
    swapped = message[:HEADER_BYTES] + message[HEADER_BYTES + 80 : HEADER_BYTES + 160]
    swapped += message[HEADER_BYTES : HEADER_BYTES + 80] + message[HEADER_BYTES + 160 :]
    refuses("forged", opener, swapped)
    assert opened(opener, message) == TEXT


def test_a_message_comes_out_once_and_in_the_order_of_its_tag():
    sealer, opener = Sealer(WAY, SECRET), Opener(WAY, SECRET)
    first, second, third, other = (sealed(sealer, tag=tag) for tag in (5, 5, 5, 6))
    assert opened(opener, other, tag=6) == TEXT  # tags are independent of each other
    assert opened(opener, second) == TEXT
    refuses("replayed", opener, second)
    refuses("reordered", opener, first)
    assert opened(opener, third) == TEXT
    refuses("reordered", opener, second)


def test_a_message_that_is_far_behind_is_refused():
    sealer, opener = Sealer(WAY, SECRET), Opener(WAY, SECRET)
    old, fits = (sealed(sealer, tag=tag) for tag in (1, 2))
    sealer._sequence += WINDOW - 2
    assert opened(opener, sealed(sealer)) == TEXT
    refuses("replayed", opener, old, tag=1)
    assert opened(opener, fits, tag=2) == TEXT


def test_what_is_remembered_of_tags_is_bounded():
    sealer, opener = Sealer(WAY, SECRET), Opener(WAY, SECRET)
    for tag in range(50):
        sealer._sequence += WINDOW // 10
        opened(opener, sealed(sealer, tag=tag), tag=tag)
    assert len(opener._seen) <= 11


@pytest.mark.parametrize(
    "other",
    [
        replace(WAY, sender=1, receiver=0),  # reflected
        replace(WAY, sender=3),
        replace(WAY, receiver=3),
        replace(WAY, stream=0),
        replace(WAY, epoch=8),
    ],
)
def test_a_message_of_another_place_is_refused(other):
    refuses("misplaced", Opener(WAY, SECRET), sealed(Sealer(other, SECRET)))
    other = replace(other, stream=WAY.stream) if other.stream != WAY.stream else other
    claimed = bytearray(sealed(Sealer(replace(other, stream=9), SECRET)))
    claimed[:HEADER_BYTES] = sealed(Sealer(WAY, SECRET))[:HEADER_BYTES]
    refuses("forged", Opener(WAY, SECRET), claimed)


def test_another_tag_key_or_suite_is_refused():
    message = sealed(Sealer(WAY, SECRET))
    refuses("misplaced", Opener(WAY, SECRET), message, tag=6)
    refuses("forged", Opener(WAY, bytes(32)), message)
    refuses("forged", Opener(replace(WAY, suite=Suite.CHACHA20_POLY1305), SECRET), message)
    refuses("forged", Opener(WAY, SECRET), os.urandom(300))


@pytest.mark.parametrize("limits", [Limits(records=3), Limits(n_bytes=600), Limits(age_s=3.0)])
def test_a_key_makes_its_successor(limits):
    now_s = iter(range(1000))
    sealer, opener = Sealer(WAY, SECRET, limits, clock=lambda: float(next(now_s))), Opener(WAY, SECRET)
    messages = [sealed(sealer) for _ in range(9)]
    generations = [struct.unpack_from("<I", message, 4)[0] for message in messages]
    assert generations[0] == 0
    assert generations[-1] >= 2
    for message in messages:
        assert opened(opener, message) == TEXT
    first, last = messages[0], messages[-1]
    assert opener._key.generation == generations[-1]
    struct.pack_into("<Q", first, 8, 100)  # a fresh number, but a key that is gone
    refuses("stale", opener, first)
    struct.pack_into("<I", last, 4, generations[-1] + 1000)
    struct.pack_into("<Q", last, 8, 100)
    refuses("stale", opener, last)


def test_messages_of_the_key_before_still_come_out():
    sealer, opener = Sealer(WAY, SECRET, Limits(records=1)), Opener(WAY, SECRET)
    first, second = sealed(sealer, tag=1), sealed(sealer, tag=2)
    assert opened(opener, second, tag=2) == TEXT
    assert opened(opener, first, tag=1) == TEXT


def test_no_nonce_is_used_twice(records_of_64, monkeypatch):
    used = []

    class Spy:
        def __init__(self, key):
            self.key = key

        def encrypt_into(self, nonce, plain, data, out):
            used.append((self.key, nonce))
            if len(used) % 7 == 0:
                raise MemoryError  # killed between counting and sending: the number is gone all the same

    monkeypatch.setattr(seal, "cipher", lambda suite, key: Spy(key))
    for secret in (SECRET, bytes(32)):
        for stream in range(3):
            sealer = Sealer(replace(WAY, stream=stream), secret, Limits(records=20))
            for _ in range(30):
                try:
                    sealed(sealer)
                except MemoryError:
                    continue
    assert len(used) == len(set(used)) > 500


def test_keys_do_not_work_in_a_forked_process(monkeypatch):
    sealer, opener = Sealer(WAY, SECRET), Opener(WAY, SECRET)
    message = sealed(sealer)
    child = os.fork()
    if child == 0:  # no pytest here: say it by the exit status alone
        status = 0
        for use in (lambda: sealed(sealer), lambda: opened(opener, message)):
            try:
                use()
            except SetupError as error:
                status += "was forked from it" in str(error)
        os._exit(40 + status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert opened(opener, message) == TEXT


@pytest.mark.parametrize("store", [pickle.dumps, copy.copy, copy.deepcopy])
def test_keys_are_neither_stored_nor_copied(store):
    with pytest.raises(TypeError, match="would use a nonce twice"):
        store(Sealer(WAY, SECRET))


def test_padded_lengths_are_few_and_little_longer():
    assert [padded(n) for n in (0, 1, 2, 9, 100, 1 << 16, (1 << 20) + 1)] == [
        0,
        1,
        2,
        10,
        104,
        1 << 16,
        1081344,
    ]
    for n in range(1, 5000):
        assert n <= padded(n) <= 1.12 * n + 1
        assert padded(padded(n)) == padded(n)
    assert len({padded(n) for n in range(1 << 15, 1 << 16)}) <= 17


def test_padding_hides_the_length():
    sealer = Sealer(WAY, SECRET, pad=True)
    assert len({len(sealed(sealer, bytes(n))) for n in range(97, 105)}) == 1
    assert len({bytes(sealed(sealer, bytes(n))[32:40]) for n in range(97, 105)}) == 1


def test_a_new_session_has_keys_that_do_not_follow_and_late_messages_of_the_old_one_count():
    sealer, opener = Sealer(WAY, SECRET, Limits(records=2)), Opener(WAY, SECRET)
    late = [sealed(sealer, tag=tag) for tag in range(6)]  # of three generations
    behind = Opener(WAY, SECRET)
    sealer.renew(bytes(32), 1)
    opener.renew(bytes(32), 1)
    assert opened(opener, late[0], tag=0) == TEXT
    messages = [sealed(sealer, tag=9) for _ in range(5)]
    assert sealer.ratchets == 2
    for message in messages:
        assert opened(opener, message, tag=9) == TEXT
    assert opener.ratchets == 2
    refuses("stale", behind, messages[0], tag=9)
    refuses("stale", opener, late[1], tag=1)  # two generations of the new session are behind it


def test_messages_that_a_new_session_overtook_come_out():
    sealer, opener = Sealer(WAY, SECRET, Limits(records=2)), Opener(WAY, SECRET)
    late = [sealed(sealer, tag=tag) for tag in range(6)]
    sealer.renew(bytes(32), 1)
    opener.renew(bytes(32), 1)
    assert opened(opener, sealed(sealer, tag=9), tag=9) == TEXT
    for tag, message in enumerate(late):
        assert opened(opener, message, tag) == TEXT
    refuses("replayed", opener, late[0], tag=0)


def test_the_keys_of_a_session_never_reach_those_of_the_next(monkeypatch):
    monkeypatch.setattr(seal, "_SPAN", 2)
    sealer = Sealer(WAY, SECRET, Limits(records=1))
    for _ in range(2):
        sealed(sealer)
    with pytest.raises(SetupError, match="used up after 2 generations"):
        sealed(sealer)
    sealer.renew(bytes(32), 1)
    sealed(sealer)
