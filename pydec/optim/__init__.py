"""Decentralised optimisers: ordinary torch optimisers whose ``step`` also gossips."""

from __future__ import annotations

from pydec.optim.optimizer import DecentralizedOptimizer

__all__ = ["DecentralizedOptimizer"]
