"""A Slurm cluster on this machine: the hosts of ``netlab``, each with a real slurmd."""

from __future__ import annotations

from .cluster import Cluster, missing

__all__ = ["Cluster", "missing"]
