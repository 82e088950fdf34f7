"""Who may propose: leaders in proportion to stake, by integers alone.

Round 0 of a height goes to a validator that signed the newest commit certificate in the chain, so a dead peer
costs nobody a timer; later rounds go through all validators, so progress never depends on that reputation.
Source: smooth weighted round-robin, Tendermint's spec/consensus/proposer-selection.md.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from pydec.consensus.validators import ValidatorTable

_PERIOD = 4096  # of the sequence of later leaders, which is kept in memory


def advance(
    table: ValidatorTable, priorities: tuple[int, ...], eligible: Collection[int]
) -> tuple[int, tuple[int, ...]]:
    """One step of the rotation: the next leader, and the priorities after it.

    Every eligible validator gains its stake, the highest leads (the lowest index among equals) and pays what
    all gained, so the sum of priorities stays and each leads in proportion to its stake.

    Args:
        table: the validators.
        priorities: one integer for each validator; zeros in the beginning.
        eligible: indices that may lead; all of the table if none of them has stake.
    """
    if len(priorities) != len(table):
        raise ValueError(f"{len(table)} validators need as many priorities, got {len(priorities)}")
    stakes = [validator.stake for validator in table.validators]
    able = sorted({index for index in eligible if stakes[index] > 0})
    if not able:
        able = [index for index, stake in enumerate(stakes) if stake > 0]
    after = list(priorities)
    for index in able:
        after[index] += stakes[index]
    leader = max(able, key=lambda index: (after[index], -index))
    after[leader] -= sum(stakes[index] for index in able)
    return leader, tuple(after)


@lru_cache(maxsize=8)
def _sequence(table: ValidatorTable) -> tuple[list[int], list[tuple[int, ...]]]:
    """Leaders so far, and a list holding the priorities after them; both are extended as needed."""
    return [], [(0,) * len(table)]


def _at(table: ValidatorTable, position: int) -> int:
    leaders, last = _sequence(table)
    position %= _PERIOD
    while len(leaders) <= position:
        leader, last[0] = advance(table, last[0], range(len(table)))
        leaders.append(leader)
    return leaders[position]


def later_leader(table: ValidatorTable, height: int, round: int, first: int) -> int:
    """Index of the leader of a round after the first.

    Args:
        table: the validators of the height.
        height: where the rotation starts.
        round: at least 1.
        first: the leader of round 0, whom round 1 passes over: that it failed is why there is a round 1.
    """
    if round < 1:
        raise ValueError(f"round 0 is led by rotation among signers; later rounds start at 1, got {round}")
    start = height % len(table)
    if any(index != first and validator.stake for index, validator in enumerate(table.validators)):
        while _at(table, start) == first:
            start += 1
    return _at(table, start + round - 1)
