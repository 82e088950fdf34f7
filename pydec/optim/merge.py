"""Exact means of all living ranks' models, outside of training steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pydec import kernels
from pydec.comm.living import Mean, mean_of_living
from pydec.comm.transport import Transport
from pydec.optim.arena import Arena


def average(transport: Transport, arena: Arena, mean: Mean) -> None:
    """Replace an arena's numbers by their mean over all living ranks; 16-bit ones are summed in float32.

    Args:
        transport: any stream of the cluster.
        arena: parameters or buffers.
        mean: how; all living ranks call it together.
    """
    if arena.dtype in (torch.float32, torch.float64):
        with arena.exact() as flat:
            mean_of_living(transport, flat.numpy(), mean)
    else:
        arena.load()
        vector = arena.in_host()
        mean_of_living(transport, vector, mean)
        arena.replace(vector)
        arena.store()


def distance(transport: Transport, arenas: Sequence[Arena]) -> float:
    """Root mean square distance of the living ranks' models to their mean.

    Args:
        transport: any stream of the cluster.
        arenas: of the parameters; left as they are.
    """
    total = np.zeros(1)
    for arena in arenas:
        arena.load()
        vector = arena.in_host()
        mean = vector.copy()
        mean_of_living(transport, mean)
        total += kernels.sqdist(vector, mean)
    mean_of_living(transport, total)
    return float(total[0] ** 0.5)
