"""Who holds what it owes meets every challenge; who does not is counted, and the dead are not."""

from __future__ import annotations

import pytest

from pydec.store.challenges import Challenges
from pydec.store.exchange import DEADLINE_S, Exchange
from pydec.store.objects import digest_of
from tests.store.test_churn import Network
from tests.store.test_exchange import BLOBS, store_of


def run(owes: tuple[bytes, ...], seconds: float, *, silent: bool = False, dies: bool = False) -> Challenges:
    """Peer 0 challenges peer 1 for an object once a second."""
    net, data = Network(), BLOBS[4]
    links = [net.link(rank) for rank in range(2)]
    exchanges = [Exchange(link, store_of(*held)) for link, held in zip(links, ((data,), owes), strict=True)]
    store = store_of(data)
    made = Challenges(exchanges[0], links[0], store.objects, lambda: (1, digest_of(data)), 1.0)
    while net.time_s < seconds:
        net.time_s += 0.1
        made.turn()
        exchanges[0].turn()
        if not silent:
            exchanges[1].turn()
        if dies and net.time_s > 1.5:
            net.dead.add(1)
    return made


def test_who_holds_the_object_meets_every_challenge():
    made = run((BLOBS[4],), 10.5)
    assert made.asked == made.proved > 5
    assert not made.missed


@pytest.mark.parametrize("owes", [(), (BLOBS[3],)])
def test_who_does_not_hold_it_misses_them(owes):
    made = run(owes, 10.5)
    assert (made.proved, made.missed[1]) == (0, made.asked)


def test_silence_is_missed_after_the_deadline():
    made = run((BLOBS[4],), DEADLINE_S + 5, silent=True)
    assert (made.proved, made.missed[1]) == (0, 1)


def test_the_dead_miss_nothing():
    made = run((BLOBS[4],), 3.0, silent=True, dies=True)
    assert (made.proved, dict(made.missed)) == (0, {})
    assert made.asked <= 1  # what is on its way


def test_an_object_that_is_not_here_is_no_challenge():
    net = Network()
    link = net.link(0)
    made = Challenges(Exchange(link, store_of()), link, store_of().objects, lambda: (1, bytes(32)), 1.0)
    net.time_s = 5.0
    assert not made.turn()
    assert made.asked == 0
