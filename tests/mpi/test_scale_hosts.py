"""More ranks on a host that is new to a job: all start again, and why is said. Namespaces are the hosts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from pydec.cli import bench

from .test_scale import TASK, granted, losses

lab = bench.load("netlab.lab")
pytestmark = [
    pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing())),
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("mpirun"),  # that is: not inside mpirun
]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Two ranks that train, each on a host of its own; a third host has nothing to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "tiny.py").write_text(textwrap.dedent(TASK))
    with lab.Lab([lab.Link("1gbit")] * 3) as made:
        where = f"-n 2 --hosts {made.hosts[0]}:1,{made.hosts[1]}:1 --launch-agent {made.launcher}"
        words = (
            f"run {where} train tiny:blobs --steps 600 --lr 0.05 --seed 3 --threads 1 --quiet --run-dir run"
        )
        process = subprocess.Popen(
            made.inside(0, [sys.executable, "-m", "pydec", *words.split()]),
            env={
                **made.environment(),
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
                "TMPDIR": str(tmp_path),
                "OMPI_MCA_btl_tcp_if_include": "eth0",
                "PRTE_MCA_prte_if_include": "eth0",
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield made, process
        finally:
            made.kill()
            process.kill()
            process.communicate()


def test_all_start_again_with_a_host_that_is_new_to_the_job(job, tmp_path):
    made, process = job
    assert granted(process, tmp_path / "run", "+1", "--host", f"{made.hosts[2]}:1") == 0
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "all start again from a checkpoint (mpirun 5.0 with fault tolerance" in err
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["ranks_finished"]) == ("done", 600, 3)
    assert [(row["from"], row["to"], row["restarted"]) for row in summary["scaled"]] == [(2, 3, True)], err
    assert len(losses(tmp_path / "run")) == 600
