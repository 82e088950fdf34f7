"""Which requests are new, repeated or those of a neighbour that counts anew; how often one is repeated."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import PeerTimeout, ProtocolError
from pydec.gossip.packets import WINDOW
from pydec.gossip.requests import AGAIN, LATE, REPEATS, Heard, Request

BODY, OTHER = np.zeros(10_000, np.uint8), np.ones(10_000, np.uint8)


def heard(sequence=100):
    found = Heard(3)
    found.take(sequence, BODY)
    return found


def test_newer_requests_are_new_and_repeated_or_doubled_ones_are_not():
    requests = heard()
    assert requests.is_new(101, OTHER)
    assert not requests.is_new(100, BODY)
    for older in (99, 98, 99, 98, 100 - LATE):  # doubled ones, late
        assert not requests.is_new(older, OTHER)
    requests.answer = BODY
    requests.take(101, OTHER)
    assert requests.answer is None
    assert not requests.is_new(99, BODY)


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        (101 + WINDOW, f"more than {WINDOW} ahead"),
        (99 - LATE, f"request {99 - LATE} after 100, more than {LATE} behind: was it restarted"),
        (100, "two requests with the number 100: was it restarted"),
    ],
)
def test_a_neighbour_that_counts_anew_is_named(sequence, words):
    with pytest.raises(ProtocolError, match=f"rank 3 sent {'.*' if 'two' not in words else ''}{words}"):
        heard().is_new(sequence, OTHER)


def test_an_older_request_again_and_again_is_that_of_a_restarted_neighbour():
    requests = heard()
    for _ in range(AGAIN - 1):
        assert not requests.is_new(50, OTHER)
    with pytest.raises(
        ProtocolError, match=f"rank 3 sent request 50 {AGAIN} times after 100: was it restarted"
    ):
        requests.is_new(50, OTHER)


def test_a_claim_says_which_request_was_answered():
    requests, request = heard(70_000), Request(peer=3, number=0, sequence=70_000, length=64)
    assert requests.claim == 0
    assert not request.is_claimed(requests.claim)
    requests.answer = BODY
    assert 0 < requests.claim < 1 << 14
    assert request.is_claimed(requests.claim)
    assert not Request(peer=3, number=0, sequence=70_001, length=64).is_claimed(requests.claim)


def test_a_request_is_repeated_only_when_it_was_taken_and_not_for_ever():
    request = Request(peer=3, number=0, sequence=7, length=64)
    assert not request.due(1e9, 80.0)  # not taken yet
    now_s = 0.0
    for repeat in range(REPEATS):
        request.taken_s = now_s
        assert not request.due(now_s + 9.9, 80.0)
        now_s += 10.0
        assert request.due(now_s, 80.0)
        assert request.repeats == repeat + 1
        assert not request.due(now_s + 1e9, 80.0)
    request.taken_s = now_s
    with pytest.raises(PeerTimeout, match=r"rank 3 took request 7 9 times and did not answer within 10 s"):
        request.due(now_s + 10.0, 80.0)
