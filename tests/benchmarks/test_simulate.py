"""The suite ``simulate`` measures what it says, on few peers."""

from __future__ import annotations

import pytest

from pydec.cli import bench

suite, harness = bench.load("suite_simulate"), bench.load("harness")


@pytest.mark.timeout(300)
def test_the_suite_gives_rows():
    rows = list(suite.rows(harness.Options(quick=True, only="gossip alone")))
    assert [row.name for row in rows] == ["gossip alone", "memory of it"]
    assert rows[0].params["peers"] == 2000
    assert all(row.value > 0 for row in rows)
