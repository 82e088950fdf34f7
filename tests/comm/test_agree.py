"""Ranks that disagree all stop, with the difference in words."""

from __future__ import annotations

import pytest

from pydec.comm.agree import agree
from pydec.comm.local import LocalCluster
from pydec.errors import MismatchError, PeerTimeout


def errors_of(size, facts_of, **options):
    cluster = LocalCluster(size, **options)

    def program(transport):
        try:
            agree(transport, facts_of(transport.rank))
        except MismatchError as error:
            return str(error)
        return None

    return cluster.run(program)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_equal_facts_pass(size):
    assert errors_of(size, lambda rank: {"model": "abc", "version": "1"}) == [None] * size


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("odd", [0, 1, -1])
def test_one_odd_rank_stops_all_with_the_same_words(size, odd):
    odd %= size
    words = errors_of(size, lambda rank: {"a": "1", "shape": "(3, 4)" if rank == odd else "(3, 5)"})
    assert len(set(words)) == 1
    assert "ranks disagree on shape: rank" in words[0]
    assert f"rank {odd} has (3, 4)" in words[0]
    assert "has (3, 5)" in words[0]


def test_a_fact_that_only_one_rank_has_is_a_difference():
    assert (
        errors_of(2, lambda rank: {"seed": "1"} if rank else {})
        == ["ranks disagree on seed: rank 0 has none, rank 1 has 1"] * 2
    )


def test_a_long_value_is_shortened():
    (words, _) = errors_of(2, lambda rank: {"model": "x" * 1000 + str(rank)})
    assert len(words) < 600
    assert "(1001 characters)" in words


def test_a_rank_that_takes_no_part_is_named():
    def program(transport):
        if transport.rank == 1:
            transport.sleep(100.0)
        else:
            agree(transport, {"a": "1"})

    with pytest.raises(PeerTimeout, match="rank 1 let 5 s pass"):
        LocalCluster(2, deadline_s=5.0).run(program)


def test_facts_must_be_short():
    with pytest.raises(ValueError, match="pass digests"):
        LocalCluster(2).run(lambda transport: agree(transport, {"model": "x" * 70_000}))
