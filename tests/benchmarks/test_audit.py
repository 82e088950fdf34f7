"""The suite ``audit`` runs, finds the liar and nobody else."""

from __future__ import annotations

import pytest

from pydec.cli import bench

suite, harness = bench.load("suite_audit"), bench.load("harness")


@pytest.mark.timeout(300)
def test_who_lies_is_evicted_and_nobody_else():
    rows = list(suite.rows(harness.Options(quick=True, only="rounds to eviction, equivocation")))
    assert [row.name for row in rows] == ["rounds to eviction, equivocation, budget 10 %"]
    (row,) = rows
    assert row.params["found_by"] == ["claims"]
    assert (row.params["missed"], row.params["innocent"], row.value) == (0, 0, 10.0)
