"""The suite ``simulate`` measures what it says, on few peers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(300)
def test_the_suite_gives_rows(tmp_path):
    """In a process of its own: memory that other tests have left behind would hide what it takes."""
    words = ["bench", "simulate", "--quick", "--only", "gossip alone", "--json", str(tmp_path / "rows.json")]
    subprocess.run([sys.executable, "-m", "pydec", *words], check=True, capture_output=True, timeout=250)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in rows] == ["gossip alone", "memory of it"]
    assert rows[0]["params"]["peers"] == 2000
    assert all(row["value"] > 0 for row in rows)
