from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.consensus.validators import STAKE_LIMIT, Validator, ValidatorTable
from pydec.errors import FrameError

from .samples import key, keys_and_table


def test_quorum_and_blocking_are_strict_and_exact_to_the_last_unit():
    for total in (1, 2, 3, 4, 7, 100, STAKE_LIMIT - 1):
        _, table = keys_and_table([total])
        assert table.quorum(total)
        for weight in {2 * total // 3, 2 * total // 3 + 1, total // 3, total // 3 + 1}:
            assert table.quorum(weight) == (3 * weight > 2 * total)
            assert table.blocking(weight) == (3 * weight > total)
            assert table.blocking(weight) != table.quorum(total - weight) or 3 * weight == total


def test_two_quorums_share_more_than_a_third_at_the_largest_stakes():
    _, table = keys_and_table([(1 << 61) // 4] * 4)
    assert table.total == 1 << 61
    assert not table.quorum(table.weight([0, 1]))
    assert table.quorum(table.weight([0, 1, 2]))


def test_any_order_gives_the_same_table_and_any_change_another_digest():
    keys, table = keys_and_table([3, 1, 2])
    assert ValidatorTable.of(0, reversed(table.validators)) == table
    assert table.index(keys[1].public) == 1
    assert table.index(bytes(32)) is None
    digests = {table.digest(), ValidatorTable(1, table.validators).digest()}
    for change in ({"stake": 9}, {"key": key(9).public}, {"address": "host:1"}):
        changed = dataclasses.replace(table[0], **change)
        digests.add(ValidatorTable(0, (changed, *table.validators[1:])).digest())
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: ValidatorTable(0, ()), "1 to 1024"),
        (lambda v: ValidatorTable(0, (v, v)), "sorted"),
        (lambda v: ValidatorTable(0, (dataclasses.replace(v, stake=0),)), "sum of stakes"),
        (lambda v: ValidatorTable.of(0, [v, Validator(key(5).public, v.key, 1)]), "one voting key"),
        (lambda v: ValidatorTable(-1, (v,)), "epoch"),
        (lambda v: dataclasses.replace(v, stake=1.0), "integer"),
        (lambda v: dataclasses.replace(v, stake=True), "integer"),
        (lambda v: dataclasses.replace(v, stake=STAKE_LIMIT), "integer"),
        (lambda v: dataclasses.replace(v, stake=-1), "integer"),
        (lambda v: dataclasses.replace(v, key=b"short"), "32 bytes"),
        (lambda v: dataclasses.replace(v, address="x" * 256), "255 bytes"),
    ],
)
def test_tables_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make(Validator(key(1).public, key(1).public, 1))


def test_sums_of_stakes_are_bounded():
    validators = [Validator(key(i).public, key(i).public, STAKE_LIMIT - 1) for i in range(2)]
    with pytest.raises(ValueError, match="sum of stakes"):
        ValidatorTable.of(0, validators)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_frame_error(data):
    try:
        table = ValidatorTable.decode(data)
    except FrameError:
        return
    assert table.encode() == data


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=8), st.data())
def test_a_table_comes_back_and_a_changed_one_does_not(stakes, data):
    _, table = keys_and_table([*stakes, 1], epoch=3)
    encoded = table.encode()
    assert ValidatorTable.decode(encoded) == table
    at = data.draw(st.integers(0, len(encoded) - 1))
    flipped = encoded[:at] + bytes((encoded[at] ^ 1 << data.draw(st.integers(0, 7)),)) + encoded[at + 1 :]
    for other in (flipped, encoded[:at], encoded + b"\0"):
        try:
            assert ValidatorTable.decode(other) != table
        except FrameError:
            pass
