"""Gives a rank's model and optimiser the state that a checkpoint, or another rank's memory, holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pydec.comm.collect import ring_mean
from pydec.errors import ConfigError, PydecError
from pydec.train.checkpoint_files import OWN, Store
from pydec.train.checkpoint_layout import difference, shapes
from pydec.train.checkpoint_state import model_tensors, set_random_state, unflatten
from pydec.train.resume import Point
from pydec.train.together import Member, settle, text

if TYPE_CHECKING:
    from pydec.optim import DecentralizedOptimizer
    from pydec.train.growth import Kept


def check_model(path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise ConfigError unless the checkpoint's model is one like ``model``."""
    saved = {name: tensor for name, tensor in tensors.items() if not name.startswith(OWN)}
    differs = difference(shapes(saved), shapes(model_tensors(model)))
    if differs:
        raise ConfigError(
            f"{path} is of another model: {differs}; use the model that the run was made with, or start anew"
        )


def load_model(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Put a checked checkpoint's model in place."""
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(OWN)})


def restore(
    store: Store | Kept, point: Point, rank: int, model: nn.Module, optimizer: DecentralizedOptimizer
) -> None:
    """Put a rank's whole state back; all ranks together.

    Raises:
        ConfigError: the checkpoint is of another model.
    """
    tensors = store.tensors(point.step, rank)
    path = store.path(point.step, rank)
    check_model(path, tensors, model)
    state = {name: unflatten(words, tensors) for name, words in point.mine[rank]["state"].items()}
    load_model(tensors, model)
    optimizer.load_state_dict(state["optimizer"])
    set_random_state(state["random"])


def read_mean(
    peer: Member, store: Store | Kept | None, point: Point, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Give the model and the torch optimiser the mean of the saved ones; all ranks together.

    Sums run in float64 and round the ring, so that all ranks get the same bits. Integers and texts are those
    of the lowest rank.

    Raises:
        ConfigError: a checkpoint is of another model; all ranks raise.
    """
    sums: dict[str, Tensor] = {}
    said: dict[str, Any] = {}
    error: PydecError | None = None
    try:
        for rank, manifest in sorted(point.mine.items()):
            assert store is not None
            tensors = store.tensors(point.step, rank)
            check_model(store.path(point.step, rank), tensors, model)
            for name, tensor in tensors.items():
                if _outlives(name) and (tensor.dtype.is_floating_point or rank == point.members[0]):
                    sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
            if rank == point.members[0]:
                said["optimizer"] = manifest["state"]["optimizer"]
                said["tensors"] = {
                    name: [str(t.dtype).removeprefix("torch."), list(t.shape)]
                    for name, t in tensors.items()
                    if _outlives(name)
                }
    except PydecError as caught:
        error = caught
    settle(peer, error)
    said = json.loads(text(peer, json.dumps(said), point.speaker))
    mean: dict[str, Tensor] = {}
    for name, (kind, shape) in said["tensors"].items():
        dtype = getattr(torch, kind)
        total = np.zeros(int(np.prod(shape, dtype=np.int64)))
        if name in sums:
            total[...] = sums.pop(name).reshape(-1).numpy()
        ring_mean(peer.transport, total)
        whole = torch.from_numpy(total * peer.size).reshape(shape)
        mean[name] = (
            (whole / len(point.members)).to(dtype) if dtype.is_floating_point else whole.round().to(dtype)
        )
    load_model(mean, model)
    optimizer.load_state_dict(unflatten(said["optimizer"], _Lenient(mean))["optimizer"])


class _Lenient(dict[str, Tensor]):
    """Tensors of which some are no longer wanted."""

    def __missing__(self, name: str) -> Tensor:
        return torch.empty(0)


def _outlives(name: str) -> bool:
    """Whether a tensor outlives a change of the number of ranks."""
    return not name.startswith(OWN) or name.startswith(f"{OWN}optimizer/optimizer/")
