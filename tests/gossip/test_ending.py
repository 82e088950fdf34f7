"""What a rank knows of who has ended and who is gone, and when that is all there is to know."""

from __future__ import annotations

import pytest

from pydec import topology
from pydec.comm.frames import unpack
from pydec.gossip.ending import Ending

PATH = topology.make("chain", size=4)  # 0 - 1 - 2 - 3


def test_news_travel_in_notes_until_all_is_known() -> None:
    first, second = Ending(0, PATH, epoch=2), Ending(1, PATH, epoch=2)
    for rank in (1, 2, 3):
        second.add(rank)
    assert not second.complete  # rank 0 is still at work
    note = second.note(last=False)
    frame = unpack(note)
    assert (frame.sender, frame.epoch) == (1, 2)
    assert not first.hear(frame, note)
    assert not first.complete
    first.add(0)
    assert first.complete
    note = first.note(last=True)
    assert second.hear(unpack(note), note)
    assert second.complete
    second.reset()
    assert not second.complete
    assert second.known == 0


@pytest.mark.parametrize("told", [False, True])
def test_nobody_waits_for_those_that_are_out_of_reach(told: bool) -> None:
    ending = Ending(0, PATH, epoch=0)
    ending.add(0)
    ending.add(1)
    assert not ending.complete
    if told:
        other = Ending(1, PATH, epoch=0)
        other.add(2, gone=True)
        note = other.note(last=False)
        ending.hear(unpack(note), note)
    else:
        ending.add(2, gone=True)
    assert ending.complete  # rank 3 can only be heard through rank 2


def test_a_note_of_another_length_does_no_harm() -> None:
    ending = Ending(0, PATH, epoch=0)
    note = ending.note(last=False)
    ending.hear(unpack(note), note[:-1])
    assert ending.known == 0
