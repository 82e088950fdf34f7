"""All survivors decide on one last step, in whatever order notes arrive and ranks die."""

from __future__ import annotations

import random

import pytest

from pydec.comm.last_step import AT_ONCE, LastStep
from pydec.errors import FrameError


def play(seed: int, *, size: int = 5, deaths: int = 3, at_once: bool = False) -> dict[int, int | None]:
    """What every survivor decides; notes of the dead reach a receiver up to some point, or not at all."""
    chance = random.Random(seed)
    ranks = {rank: LastStep(rank, size) for rank in range(size)}
    steps = {rank: chance.randrange(5, 9) for rank in ranks}
    if at_once:
        steps[chance.randrange(size)] = AT_ONCE
    wires: dict[tuple[int, int], list[bytes]] = {(a, b): [] for a in ranks for b in ranks if a != b}
    announced: set[int] = set()
    killed: set[int] = set()
    noticed: set[tuple[int, int]] = set()

    def tell(rank: int) -> None:
        for note in ranks[rank].notes(15, 0):
            for other in ranks[rank].others:
                wires[rank, other].append(note)

    def choices() -> list[tuple[str, int, int]]:
        living = [rank for rank in ranks if rank not in killed]
        return [
            *(("say", rank, rank) for rank in living if rank not in announced),
            *(("hear", a, b) for (a, b), wire in wires.items() if wire and b not in killed),
            *(("die", rank, rank) for rank in living if len(killed) < deaths and chance.random() < 0.2),
            *(("miss", a, b) for a in killed for b in living if (a, b) not in noticed and not wires[a, b]),
        ]

    while options := choices():
        what, a, b = chance.choice(options)
        if what == "say":
            announced.add(a)
            ranks[a].announce(steps[a])
            tell(a)
        elif what == "hear":
            assert ranks[b].hear(a, wires[a, b].pop(0)) == (15, 0)
            if b in announced:
                tell(b)
        elif what == "die":
            killed.add(a)
            for other in ranks:
                if other != a:
                    del wires[a, other][chance.randrange(len(wires[a, other]) + 1) :]
        else:
            noticed.add((a, b))
            ranks[b].lose(frozenset([a]))
            if b in announced:
                tell(b)
    return {rank: ranks[rank].last for rank in ranks if rank not in killed}


@pytest.mark.parametrize("deaths", [0, 1, 4])
def test_survivors_decide_alike_whoever_dies_and_whatever_order(deaths):
    for seed in range(300):
        decided = set(play(seed, deaths=deaths).values())
        assert len(decided) == 1, seed
        assert decided < {5, 6, 7, 8}, seed


def test_one_that_comes_to_no_step_ends_all_at_once():
    for seed in range(100):
        assert set(play(seed, deaths=0, at_once=True).values()) == {AT_ONCE}


def test_a_peer_alone_decides_on_its_own_step():
    alone = LastStep(0, 1)
    alone.announce(7)
    alone.notes(15, 0)
    assert alone.last == 7


@pytest.mark.parametrize("note", [b"", b"step", b"stop" + bytes(40), b"step" + bytes(200)])
def test_other_bytes_are_refused(note):
    with pytest.raises(FrameError, match="rank 1 sent"):
        LastStep(0, 3).hear(1, note)
