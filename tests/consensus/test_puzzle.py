"""Puzzles: what a solution is bound to, its price, the retarget's limits, a search that can be stopped."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from pydec.consensus.puzzle import MAX_TARGET, PUZZLES, Puzzle, retarget
from pydec.errors import TransactionError

EASY = Puzzle("sha256", bytes([1]) * 32, 7, bytes([2]) * 32, bytes([3]) * 32, MAX_TARGET >> 10)


def test_a_solution_is_bound_to_every_field():
    nonce = EASY.solve()
    EASY.verify(nonce)
    for change in (
        {"chain_id": bytes(32)},
        {"period": 8},
        {"block": bytes(32)},
        {"key": bytes(32)},
        {"target": 1},
    ):
        with pytest.raises(TransactionError, match=f"nonce {nonce} does not solve the sha256 puzzle"):
            replace(EASY, **change).verify(nonce)


def test_the_hash_is_as_documented():
    text = b"pydec.puzzle.v1sha256\0\0" + EASY.chain_id + (7).to_bytes(8, "big") + EASY.block + EASY.key
    expected = hashlib.sha256(text + (99).to_bytes(8, "big")).digest()
    assert EASY.value(99) == int.from_bytes(expected, "big")
    text = text.replace(b"sha256\0\0", b"scrypt\0\0")
    expected = hashlib.scrypt(
        (99).to_bytes(8, "big"),
        salt=hashlib.sha256(text).digest(),
        n=1 << 14,
        r=8,
        p=1,
        maxmem=1 << 26,
        dklen=32,
    )
    assert replace(EASY, kind="scrypt").value(99) == int.from_bytes(expected, "big")


def test_scrypt_is_solved_too():
    puzzle = replace(EASY, kind="scrypt", target=MAX_TARGET // 3)
    puzzle.verify(puzzle.solve())


def test_the_mean_number_of_tries_is_as_expected():
    tries = []
    for seed in range(300):
        puzzle = replace(EASY, block=bytes([seed % 256, seed // 256]) * 16, target=MAX_TARGET // 50)
        puzzle.solve(progress=lambda tried, expected: tries.append(tried))
    assert puzzle.expected_tries == 51
    assert 40 < sum(tries) / 300 < 60


def test_searchers_share_the_nonces():
    found = [EASY.solve(start=i, step=3) for i in range(3)]
    assert [nonce % 3 for nonce in found] == [0, 1, 2]
    assert min(found) == EASY.solve()


@pytest.mark.parametrize("kind", PUZZLES)
def test_a_search_can_be_stopped_and_says_how_far_it_is(kind):
    told = []
    impossible = replace(EASY, kind=kind, target=1)
    assert impossible.solve(progress=lambda *args: told.append(args), stop=lambda: len(told) == 3) is None
    assert [tried for tried, _ in told] == sorted(tried for tried, _ in told)
    assert {expected for _, expected in told} == {1 << 256}


@pytest.mark.parametrize(
    ("joins", "factor"), [(0, 2), (1, 2), (4, 2), (6, 8 / 6), (8, 1), (12, 8 / 12), (16, 0.5), (10**9, 0.5)]
)
def test_the_target_follows_the_joins_within_a_factor_of_two(joins, factor):
    target = 3 << 200
    assert retarget(target, joins, wanted=8) == pytest.approx(target * factor, rel=1e-15)


def test_the_target_stays_in_its_range():
    assert retarget(MAX_TARGET, 0, 1) == MAX_TARGET
    assert retarget(1, 100, 1) == 1
    assert retarget(1, 0, 1) == 2


def test_mistakes_are_named():
    for change, message in [({"kind": "md5"}, "unknown puzzle 'md5'"), ({"target": 0}, "got 0")]:
        with pytest.raises(ValueError, match=message):
            replace(EASY, **change)
    with pytest.raises(ValueError, match="got -1 and 0"):
        retarget(1, -1, 0)
