"""Liars under mpirun lose their stake: by what their listeners tell each other, and by audits."""

from __future__ import annotations

import json

import pytest

from tests.mpi.test_robust import CLOUDS, TRAIN


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("attack", "options"), [("equivocation", []), ("sign-flip", ["--audit", "1"])])
def test_a_liar_is_slashed_and_evicted(mpirun, tmp_path, attack, options):
    (tmp_path / "clouds.py").write_text(CLOUDS)
    words = ["clouds:clouds", "--steps", "20", "--log-every", "4", "--topology", "complete"]
    words += ["--aggregate", "cs-plus", "--byzantine", "2,", "--attack", attack, *options]
    words += ["--ledger", "ledger", "--run-dir", "run", "--deadline", "300", "--threads", "1", "--quiet"]
    done = mpirun(TRAIN.format(words=words), 5, timeout_s=500)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    ledger = summary["ledger"]
    assert summary["accuracy"] > 0.9
    assert ledger["accountable"]["slashed"] == [2]
    assert ledger["accountable"]["unsigned"] == 0
    assert [gone["rank"] for gone in ledger["evicted"]] == [2]
    if options:
        assert [wrong["rank"] for wrong in ledger["audits"]["wrong"]] == [2]
        assert ledger["audits"]["doubted"] == []
    else:
        assert [found["rank"] for found in ledger["accountable"]["equivocated"]] == [2]
