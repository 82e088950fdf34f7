"""Exact means of all ranks' models, outside of training steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pydec.comm.transport import Transport
from pydec.optim.arena import Arena

Mean = Callable[[Transport, NDArray[np.generic]], None]
"""``comm.collect.ring_mean`` or ``comm.collect.exact_mean``."""


def average(transport: Transport, arena: Arena, mean: Mean) -> None:
    """Replace an arena's numbers by their mean over all ranks; 16-bit ones are summed in float32.

    Args:
        transport: any stream of the cluster.
        arena: parameters or buffers.
        mean: how; all ranks call it together.
    """
    if arena.dtype in (torch.float32, torch.float64):
        with arena.exact() as flat:
            mean(transport, flat.numpy())
    else:
        arena.load()
        mean(transport, arena.vector)
        arena.store()
