"""A rank's words to its supervisor are taken out of standard error, and nothing else is."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.comm.words import (
    ALONE,
    JOINED,
    NOT_HERE,
    VARIABLE,
    Listener,
    say,
    say_counted,
    say_growth,
    say_out,
    say_stepped,
)


def heard(data, size):
    listener = Listener()
    out = b"".join(listener.feed(data[i : i + size]) for i in range(0, len(data), size))
    return out + listener.finish(), listener


def test_what_is_said_is_heard(monkeypatch):
    end, start = os.pipe()
    monkeypatch.setattr(os, "write", lambda _, data, write=os.write: write(start, data))
    monkeypatch.delenv(VARIABLE, raising=False)
    say(0, begins=True)
    monkeypatch.setenv(VARIABLE, "1")
    say(2, begins=True)
    say(13, begins=True)
    say(2, begins=False)
    say_stepped(13)
    say_out(7)
    say_counted(2, 400)
    say_counted(2, 40)
    out, listener = heard(os.read(end, 1000), 7)
    os.close(end)
    os.close(start)
    assert (out, listener.begun, listener.left, listener.lost()) == (b"", {2, 13}, {2}, [13])
    assert (listener.stepped, listener.out, listener.counted) == ({13}, {7}, 400)


@pytest.mark.parametrize("size", [1, 50, 9000])
def test_what_became_of_newcomers_is_heard_and_ends_what_was_before(monkeypatch, size):
    said = []
    monkeypatch.setattr(os, "write", lambda _, data: said.append(data))
    monkeypatch.setenv(VARIABLE, "1")
    say_growth(0, NOT_HERE, reason="no\nroom \x1e\x1f")
    say_growth(0, ALONE, 70, "x" * 5000)
    out, listener = heard(b"a\n" + b"b\n".join(said), size)
    assert out == b"a\nb\n"
    assert listener.growth == [(NOT_HERE, 0, "no room  "), (ALONE, 70, "x" * 400)]
    said.clear()
    say_stepped(0)
    say_out(1)
    say_growth(0, JOINED, 80)
    say_stepped(2)
    _, listener = heard(b"".join(said), size)
    assert (listener.growth, listener.stepped, listener.out) == ([(JOINED, 80, "")], {2}, set())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_word_may_stand_anywhere_in_a_line(size):
    data = b"\r 12% |\x1epydec 1 +\x1f##  |\nlast\x1epydec 1 -\x1f\x1epydec 1 +\x1f"
    out, listener = heard(data, size)
    assert (out, listener.lost()) == (b"\r 12% |##  |\nlast", [1])  # it opened the transport again


@given(
    st.lists(st.sampled_from([b"\x1e", b"\x1epydec ", b"\x1epydec 9", b"+\x1f", b" ", b"text\n"])),
    st.integers(1, 9),
)
def test_nothing_but_words_is_lost(pieces, size):
    data = b"".join(pieces)
    whole = Listener()
    assert heard(data, size)[0] == whole.feed(data) + whole.finish()
    if b"+\x1f" not in data:
        assert heard(data, size)[0] == data
