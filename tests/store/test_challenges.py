"""Who holds what it owes meets every challenge; who does not is counted, and the dead and slow are not."""

from __future__ import annotations

import pytest

from pydec.store.challenges import SPACE_S, STRIKES, Challenges, Owed
from pydec.store.exchange import DEADLINE_S, Exchange
from pydec.store.messages import Kind, Message
from pydec.store.objects import digest_of
from tests.store.test_churn import Network
from tests.store.test_exchange import BLOBS, store_of

NAME = digest_of(BLOBS[4])


class Told:
    """A jury that keeps what it hears."""

    def __init__(self) -> None:
        self.signed: list[Owed] = []
        self.heard: list[tuple[int, Owed]] = []

    def sign(self, owed: Owed) -> bytes | None:
        self.signed.append(owed)
        return bytes(72)

    def hear(self, signer: int, owed: Owed, share: bytes) -> bool:
        self.heard.append((signer, owed))
        return True


def run(
    owes: tuple[bytes, ...], seconds: float, *, silent: bool = False, dies: bool = False, asks: bool = False
) -> Challenges:
    """Peer 0 challenges peer 1 for an object once a second, and asks it for others if ``asks``."""
    net, data = Network(), BLOBS[4]
    links = [net.link(rank) for rank in range(2)]
    exchanges = [Exchange(link, store_of(*held)) for link, held in zip(links, ((data,), owes), strict=True)]
    store, jury = store_of(data), Told()
    made = Challenges(exchanges[0], links[0], store.objects, lambda: Owed(1, NAME, 0), 1.0, jury=jury)
    while net.time_s < seconds:
        net.time_s += 0.1
        made.turn()
        exchanges[0].turn()
        if asks:
            exchanges[0].want(BLOBS[0][:1] * 32)
            box = net.boxes[1]  # the other one drops challenges, and answers all else
            kept = [note for note in box if note[1][1] != 5]
            box.clear()
            box.extend(kept)
        if not silent:
            exchanges[1].turn()
        if dies and net.time_s > 1.5:
            net.dead.add(1)
    made.jury = jury  # type: ignore[attr-defined]
    return made


def test_who_holds_the_object_meets_every_challenge():
    made = run((BLOBS[4],), 10.5)
    assert made.asked == made.proved > 5
    assert not made.missed


@pytest.mark.parametrize("owes", [(), (BLOBS[3],)])
def test_who_does_not_hold_it_misses_them_and_is_reported_after_three(owes):
    seconds = (STRIKES - 1) * SPACE_S
    early, made = run(owes, seconds), run(owes, seconds + 5)
    assert (early.proved, early.missed[1], early.reported[1]) == (0, STRIKES - 1, 0)
    assert (made.proved, made.missed[1], made.reported[1]) == (0, STRIKES, 1)
    assert made.jury.signed == [Owed(1, NAME, 0)]  # type: ignore[attr-defined]
    assert run(owes, seconds + 2 * SPACE_S + 5).reported[1] == 3  # again, as reports may be lost


def test_silence_is_no_miss():
    made = run((BLOBS[4],), 10 * DEADLINE_S, silent=True)
    assert (made.proved, made.missed[1], made.reported[1]) == (0, 0, 0)
    assert made.silent[1] >= 4


def test_silence_is_a_miss_from_who_answers_other_questions():
    made = run((BLOBS[4],), STRIKES * (DEADLINE_S + SPACE_S) + 5, asks=True)
    assert (made.proved, made.silent[1], made.missed[1], made.reported[1]) == (0, 0, STRIKES, 1)


def test_the_dead_miss_nothing():
    made = run((BLOBS[4],), 3.0, silent=True, dies=True)
    assert (made.proved, dict(made.missed), dict(made.silent)) == (0, {}, {})
    assert made.asked <= 1  # what is on its way


def test_an_object_that_is_not_here_is_no_challenge():
    net = Network()
    link = net.link(0)
    made = Challenges(
        Exchange(link, store_of()), link, store_of().objects, lambda: Owed(1, bytes(32), 0), 1.0
    )
    net.time_s = 5.0
    made.turn()
    assert made.asked == 0


def test_who_lost_the_object_gets_it_back_before_the_next_challenge():
    net, data = Network(), BLOBS[4]
    links = [net.link(rank) for rank in range(2)]
    exchanges = [Exchange(links[0], store_of(data)), Exchange(links[1], store_of())]
    exchanges[1].lacking = exchanges[1].want
    made = Challenges(exchanges[0], links[0], store_of(data).objects, lambda: Owed(1, NAME, 0), 1.0)
    while net.time_s < SPACE_S + 5:
        net.time_s += 0.1
        made.turn()
        for exchange in exchanges:
            exchange.turn()
    assert made.missed[1] == 1
    assert made.proved > 0


def test_a_report_is_not_believed_but_looked_into():
    """Peer 2 lies that peer 1 does not hold an object; peer 0 gets that object, and asks for a proof."""
    net, data = Network(), BLOBS[4]
    links = [net.link(rank) for rank in range(3)]
    exchanges = [Exchange(link, store_of(*held)) for link, held in zip(links, ((), (data,), ()), strict=True)]
    jury = Told()
    made = Challenges(
        exchanges[0], links[0], store_of().objects, lambda: None, 1.0, jury=jury, owes=lambda owed: True
    )
    while net.time_s < 100:
        net.time_s += 0.1
        if net.time_s < 50:
            exchanges[2].tell(0, Message(Kind.REPORT, 1, NAME, body=bytes(72)))
        made.turn()
        for exchange in exchanges:
            exchange.turn()
    assert jury.heard[0] == (2, Owed(1, NAME, 0))
    assert made.proved == made.asked > 0
    assert not made.missed
    assert not jury.signed
