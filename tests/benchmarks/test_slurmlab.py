"""A Slurm on one machine as far as it can be looked at without starting it; tests/slurm starts it."""

from __future__ import annotations

from pathlib import Path

from pydec.cli import bench

config = bench.load("slurmlab.config")
cluster = bench.load("slurmlab.cluster")


def test_nodes_keep_their_files_apart_and_their_cores_as_said():
    addresses = {"h0": "10.0.0.1", "h1": "10.0.0.2", "h2": "10.0.0.3"}
    text = config.slurm_conf(Path("/f"), addresses, cpus=3)
    lines = text.splitlines()
    assert "SlurmctldHost=h0(10.0.0.1)" in lines
    assert "NodeName=h2 NodeAddr=10.0.0.3 CPUs=3 State=UNKNOWN" in lines
    assert "PartitionName=all Nodes=h1,h2 Default=YES MaxTime=INFINITE State=UP" in lines
    for name in ("SlurmdSpoolDir", "TmpFS", "SlurmdPidFile", "SlurmdLogFile"):
        (line,) = (line for line in lines if line.startswith(f"{name}="))
        assert "%n" in line


def test_gpus_are_as_many_as_said_and_none_by_default():
    text = config.slurm_conf(Path("/f"), {"h0": "10.0.0.1", "h1": "10.0.0.2"}, cpus=3, gpus=2)
    assert "NodeName=h1 NodeAddr=10.0.0.2 CPUs=3 Gres=gpu:2 State=UNKNOWN" in text.splitlines()
    assert config.gres_conf(2) == "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
    assert config.gres_conf(0) == ""


def test_what_is_missing_is_named_with_its_packages(monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name, path: None if name == "slurmd" else name)
    monkeypatch.setattr(cluster.glob, "glob", lambda pattern: [pattern])
    assert cluster.missing() == f"slurmd not found; on Debian and Ubuntu: apt-get install {cluster.PACKAGES}"
