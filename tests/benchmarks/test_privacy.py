"""The suite ``privacy`` runs, and names what it compares with."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from pydec.cli import bench

suite, harness = bench.load("suite_privacy"), bench.load("harness")


@pytest.mark.skipif(find_spec("opacus") is None, reason="pip install 'pydec-train[privacy]'")
def test_steps_and_noise_stand_beside_their_peers():
    rows = list(suite.rows(harness.Options(quick=True, rounds=1)))
    assert [(row.name, row.peer) for row in rows] == [
        ("private step, CNN of 0.4 M", "plain"),
        ("private step, CNN of 0.4 M", "opacus"),
        ("private step, transformer of 0.5 M", "plain"),
        ("secret normal numbers", "torch's normal_"),
    ]
    for row in rows:
        assert row.ratio == pytest.approx(row.peer_value / row.value)
