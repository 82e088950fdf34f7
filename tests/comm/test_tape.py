"""What was received is played back, what is sent is kept, and the rest never comes."""

from __future__ import annotations

import pytest

from pydec.comm.tape import TapeTransport
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, FrameError, PeerTimeout


def test_a_tape_plays_and_records():
    tape = TapeTransport(1, 3, {(0, 7): b"hello"})
    link = tape.stream(Stream.GOSSIP)
    room = bytearray(8)
    pending = link.irecv(0, 7, memoryview(room))
    assert pending.done()
    assert pending.wait() == 5
    assert bytes(room[:5]) == b"hello"
    missing = link.irecv(2, 7, memoryview(room))
    assert not missing.done()
    with pytest.raises(PeerTimeout, match="rank 2 is not on the tape"):
        missing.wait()
    missing.cancel()
    assert link.isend(2, 9, memoryview(b"abc")).done()
    assert tape.sent == {(2, 9): b"abc"}
    assert (link.poll(), link.lost(), link.now()) == (None, frozenset(), 0.0)


def test_what_does_not_fit_is_refused():
    tape = TapeTransport(1, 3, {(0, 7): b"hello"})
    with pytest.raises(FrameError, match="5 bytes does not fit in 4"):
        tape.irecv(0, 7, memoryview(bytearray(4)))
    with pytest.raises(ConfigError):
        tape.isend(3, 7, memoryview(b""))
