from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from pydec.consensus.committee import GRINDING_BITS, draw, log_unsafe, log_unsafe_ever, seats_for
from pydec.consensus.validators import STAKE_LIMIT, Validator
from pydec.errors import ConfigError


def candidates(stakes: list[int]) -> list[Validator]:
    return [Validator(number.to_bytes(32, "big"), number.to_bytes(32, "big"), stake)
            for number, stake in enumerate(stakes, start=1)]  # fmt: skip


def by_counting(total: int, faulty: int, seats: int) -> Fraction:
    ways = sum(
        math.comb(faulty, j) * math.comb(total - faulty, seats - j)
        for j in range(seats + 1)
        if 3 * j >= seats and seats - j <= total - faulty
    )
    return Fraction(ways, math.comb(total, seats))


def test_odds_are_those_of_counting_all_draws():
    for total in (1, 2, 3, 7, 12, 40):
        for faulty in range(total + 1):
            for seats in range(1, total + 1):
                exact = by_counting(total, faulty, seats)
                assert math.exp(log_unsafe(total, faulty, seats)) == pytest.approx(float(exact), rel=1e-10)


def test_small_odds_keep_their_digits_also_of_stakes_as_large_as_there_can_be():
    exact = by_counting(3000, 600, 400)
    assert math.exp(log_unsafe(3000, 600, 400)) == pytest.approx(float(exact), rel=1e-9)
    # So much stake is as good as drawing with replacement: binomial, here summed as fractions.
    share, seats = Fraction(1, 4), 100
    binomial = sum(math.comb(seats, j) * share**j * (1 - share) ** (seats - j) for j in range(34, seats + 1))
    whole = STAKE_LIMIT - 4
    assert math.exp(log_unsafe(whole, whole // 4, seats)) == pytest.approx(float(binomial), rel=1e-9)


def test_odds_are_below_hoeffdings_bound_and_fall_with_the_seats():
    before = 0.0
    for seats in range(1, 500, 60):
        for faulty in (0, 1000, 2000, 3000):
            share = faulty / 10_000
            bound = -2 * seats * (math.ceil(seats / 3) / seats - share) ** 2
            assert log_unsafe(10_000, faulty, seats) <= bound + 1e-9
        after = log_unsafe(10_000, 2000, seats)
        assert after < before
        before = after


def test_a_committee_of_all_is_safe_or_not_and_nothing_between():
    assert log_unsafe(100, 33, 100) == -math.inf
    assert log_unsafe(100, 34, 100) == log_unsafe(100, 34, 1024) == 0.0


def test_tries_and_epochs_multiply_until_nothing_is_promised():
    once = log_unsafe(10_000, 2000, 300)
    assert log_unsafe_ever(10_000, 2000, 300, 8, 3) == pytest.approx(once + 6 * math.log(2))
    assert log_unsafe_ever(10_000, 2000, 4) == 0.0
    seats = seats_for(10_000, 1000, math.log(1e-9), epochs=1000)
    assert seats is not None
    assert seats % 3 == 1
    for number, holds in ((seats, True), (seats - 3, False)):
        promised = log_unsafe_ever(10_000, 1000, number, 1000, GRINDING_BITS)
        assert (promised <= math.log(1e-9)) == holds
    assert seats_for(1 << 40, 1 << 38, math.log(1e-30)) is None


def test_everybody_draws_the_same_seats_from_any_order_and_others_from_another_seed_or_epoch():
    people = candidates([1] * 200)
    table = draw(3, people, 7, 31)
    assert table.epoch == 3
    assert table.total == len(table) == 31  # one unit each: nobody sits twice
    assert draw(3, reversed(people), 7, 31) == table
    assert {v.node_id for v in draw(3, people, 8, 31).validators} != {v.node_id for v in table.validators}
    assert {v.node_id for v in draw(4, people, 7, 31).validators} != {v.node_id for v in table.validators}


def test_seats_are_in_proportion_to_stake_however_it_is_split():
    # One holds 300 of 1,000 units; then the same units belong to 300 names.
    whole, split = candidates([300, *[1] * 700]), candidates([1] * 1000)
    holder, names = whole[0].node_id, {v.node_id for v in split[:300]}
    draws, seats = 300, 20
    for people, mine in ((whole, {holder}), (split, names)):
        held = [
            sum(v.stake for v in draw(0, people, seed, seats).validators if v.node_id in mine)
            for seed in range(draws)
        ]
        assert sum(held) / draws == pytest.approx(0.3 * seats, abs=0.5)
        unsafe = sum(3 * count >= seats for count in held) / draws
        assert unsafe == pytest.approx(math.exp(log_unsafe(1000, 300, seats)), abs=0.1)


def test_who_has_no_stake_never_sits_and_all_sit_where_there_is_room():
    people = candidates([0, 5, 2])
    assert [v.stake for v in draw(0, people, 1, 7).validators] == [5, 2]
    assert all(v.node_id != people[0].node_id for v in draw(0, people, 1, 3).validators)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(0, candidates([1]), 0, 0), "1 to 1024 seats, got 0"),
        (lambda: draw(0, candidates([1]), 0, 1025), "1 to 1024 seats, got 1025"),
        (lambda: draw(0, candidates([1]), -1, 1), "seed"),
        (lambda: draw(0, candidates([0]), 0, 1), "with stake"),
        (lambda: log_unsafe(10, 11, 4), "got 11"),
        (lambda: log_unsafe(0, 0, 4), "at least 1"),
        (lambda: log_unsafe_ever(10, 1, 4, 0), "epochs must be at least 1"),
        (lambda: log_unsafe_ever(10, 1, 4, 1, -1), "grinding"),
    ],
)
def test_what_cannot_be_drawn(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_the_address_and_key_of_a_member_come_along():
    person = replace(candidates([9])[0], address="rank:4", key=b"k" * 32)
    (member,) = draw(0, [person], 0, 3).validators
    assert (member.address, member.key, member.stake) == ("rank:4", b"k" * 32, 3)
