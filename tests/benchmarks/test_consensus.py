"""The suite ``consensus`` checks what it times, and what it simulates keeps the ledger's promises."""

from __future__ import annotations

import pytest

from pydec.cli import bench

suite = bench.load("suite_consensus")


@pytest.mark.parametrize("size", [4, 16])
def test_a_commit_takes_three_message_delays(size):
    row = suite._delays(size)
    assert row.value == 3


def test_a_crashed_leader_costs_at_most_one_timer():
    assert suite._crashed_leader().value <= 1.0


def test_all_nodes_of_the_cluster_decide_and_the_chain_verifies():
    cluster = bench.load("consensus_cluster").Cluster(4)
    assert all(cluster.decide() > 0 for _ in range(3))
    assert {replica.state.height for replica in cluster.replicas.values()} == {3}
    rows = list(suite._chain(3, 1))
    assert [row.unit for row in rows] == ["blocks/s", "bytes"]
    assert rows[1].value == pytest.approx(sum(map(len, cluster.records)) / 3)
