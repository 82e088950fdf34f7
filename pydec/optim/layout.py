"""Notices when a model is not any more what its buffers were laid out for."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pydec.errors import ConfigError
from pydec.optim.arena import Arena


class Layout:
    """Which parameters an optimiser has, and which of them are trained.

    Args:
        optimizer: as it is when the buffers are laid out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._parameters = _parameters(optimizer)

    def check(self, optimizer: torch.optim.Optimizer, arenas: Iterable[Arena]) -> None:
        """Raise ConfigError if tensors are not the same any more, or not where they were."""
        if _parameters(optimizer) != self._parameters:
            raise ConfigError(
                "parameters were frozen, unfrozen or added since this DecentralizedOptimizer was made; "
                "make a new one, on all ranks, after such a change"
            )
        for arena in arenas:
            if not arena.holds():
                raise ConfigError(
                    "a parameter's storage was replaced (by module.to(...), load_state_dict(assign=True) or "
                    ".data = ...); do that before making the DecentralizedOptimizer"
                )


def _parameters(optimizer: torch.optim.Optimizer) -> list[tuple[int, bool]]:
    return [(id(p), p.requires_grad) for group in optimizer.param_groups for p in group["params"]]
