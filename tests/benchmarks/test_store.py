"""The suite ``store`` measures what it says, on small data."""

from __future__ import annotations

import pytest

from pydec.cli import bench

suite, harness = bench.load("suite_store"), bench.load("harness")


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of the peers, where they are installed
@pytest.mark.parametrize("only", ["bytes", "large", "erasure", "repair", "loader"])
def test_the_suite_gives_rows(only):
    rows = list(suite.rows(harness.Options(quick=True, only=only)))
    names = {row.name for row in rows}
    if only in ("large", "erasure", "repair"):
        assert (
            names
            == {
                "large": {"verify, nothing cached"},
                "erasure": {"encode 4+2", "decode 4+2"},
                "repair": {"repair from another host"},
            }[only]
        )
    elif only == "bytes":
        assert names == {"verified read", "verify, 4 threads", "add", "overhead on disk"}
        assert next(row.value for row in rows if row.name == "overhead on disk") < 2.0
    else:
        assert names == {f"{what}, {n} workers" for what in ("samples", "first batch") for n in (0, 2)}
    measured = [row for row in rows if row.unit != "%" and not str(row.peer).startswith("not measured")]
    assert all(row.value > 0 for row in measured)
