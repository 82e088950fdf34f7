"""Exact means of all living ranks' models, outside of training steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pydec import kernels
from pydec.comm.collect import ring_mean
from pydec.comm.living import Mean, broadcast_to_living, mean_of_living
from pydec.comm.transport import Transport
from pydec.optim.arena import Arena


def average(transport: Transport, arena: Arena, mean: Mean, honest: bool | None = None) -> None:
    """Replace an arena's numbers by their mean over all living ranks; 16-bit ones are summed in float32.

    Args:
        transport: any stream of the cluster.
        arena: parameters or buffers.
        mean: how; all living ranks call it together.
        honest: whether this rank's numbers count; None on all ranks if everybody's do.
    """
    if arena.dtype in (torch.float32, torch.float64):
        with arena.exact() as flat:
            _mean(transport, flat.numpy(), mean, honest)
    else:
        arena.load()
        vector = arena.in_host()
        _mean(transport, vector, mean, honest)
        arena.replace(vector)
        arena.store()


def _mean(transport: Transport, x: NDArray[Any], mean: Mean, honest: bool | None) -> None:
    """Of the ranks that count: theirs over the share of them."""
    if honest is not None and not honest:
        x[...] = 0
    mean_of_living(transport, x, mean)
    if honest is not None:
        share = np.full(1, float(honest))
        mean_of_living(transport, share)
        np.divide(x, x.dtype.type(share[0]), out=x)


def distance(transport: Transport, arenas: Sequence[Arena], honest: bool | None = None) -> float:
    """Root mean square distance of the living ranks' models to their mean.

    Args:
        transport: any stream of the cluster.
        arenas: of the parameters; left as they are.
        honest: as for ``average``.
    """
    total = np.zeros(1)
    for arena in arenas:
        arena.load()
        vector = arena.in_host()
        mean = vector.copy()
        _mean(transport, mean, ring_mean, honest)
        total += kernels.sqdist(vector, mean)
    _mean(transport, total, ring_mean, honest)
    return float(total[0] ** 0.5)


def spread(transport: Transport, arenas: Sequence[Arena]) -> None:
    """Give all ranks the numbers of the first."""
    for arena in arenas:
        with arena.exact() as flat:
            broadcast_to_living(transport, flat.view(torch.uint8).numpy())


@contextmanager
def averaged(transport: Transport, arenas: Sequence[Arena], honest: bool | None = None) -> Iterator[None]:
    """Within this context arenas hold their mean over the ranks that count, see ``average``."""
    own = [arena.flat.clone() for arena in arenas]
    for arena in arenas:
        average(transport, arena, ring_mean, honest)
    try:
        yield
    finally:
        for arena, saved in zip(arenas, own, strict=True):
            arena.flat.copy_(saved)
