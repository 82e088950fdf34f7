"""Several hosts on this machine: network namespaces with rate-limited links, and mpirun across them."""

from __future__ import annotations

from .lab import Lab, Link, missing

__all__ = ["Lab", "Link", "missing"]
