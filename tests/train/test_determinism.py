"""Settings hold inside and are restored outside; cores are divided between the ranks of a host."""

from __future__ import annotations

import os

import pytest
import torch

from pydec.train.determinism import own_cores, reproducible


def test_settings_are_restored():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with reproducible(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.parametrize(
    ("machine", "available", "ranks", "expected"),
    [(8, 8, None, 8), (8, 8, 4, 2), (2, 2, 4, 1), (8, 2, 4, 2), (8, 1, 8, 1)],
)
def test_cores_are_divided_unless_the_rank_is_bound(monkeypatch, machine, available, ranks, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(available)))
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI", "SLURM_")):
            monkeypatch.delenv(name)
    if ranks is not None:
        for name, value in (("SIZE", ranks), ("RANK", 0), ("LOCAL_SIZE", ranks), ("LOCAL_RANK", 0)):
            monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert own_cores() == expected
