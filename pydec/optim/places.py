"""Where a model is averaged: on the GPU that it lies on, or in host memory.

On the GPU, if all tensors that are averaged lie on one, the CUDA kernels are built, the algorithm's vectors
may lie there (``Algorithm.on_gpu``: dpsgd, choco, choco-peers, sgp, gradient-tracking, momentum-tracking,
beer, all robust rules but ubar), and so may the compressor's: none, bf16, fp16, fp8, int8, int4, int2, sign
or topk. Packets alone leave the GPU then. Everything else is averaged in host memory, to which models on GPUs
are copied and from which they return. Ranks may differ: the bits are the same (of robust rules on quantised
packets up to the rounding of distances).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch

from pydec.compress.base import Compressor
from pydec.compress.gpu import has_gpu_kernels, on_gpu
from pydec.errors import ConfigError, SetupError
from pydec.gossip.gpu import MOST_MESSAGES
from pydec.gossip.place import Place
from pydec.kernels import cuda
from pydec.optim.plan import Plan, check_choice
from pydec.topology.hierarchical import Hierarchical

GossipDevice = Literal["auto", "cpu", "cuda"]


def choose(
    wanted: GossipDevice | Place, plan: Plan, tensors: Iterable[tuple[str, torch.Tensor]]
) -> tuple[Place | None, str]:
    """The GPU on which to gossip, or None for host memory; and in words, with the reason.

    Args:
        wanted: "auto" takes the GPU where that can be; "cuda" insists; "cpu" never does. A ``Place`` is
            taken as it is, if the plan can be carried out on a GPU.
        plan: checked.
        tensors: (name, tensor) of all parameters and buffers that are averaged.

    Raises:
        ConfigError: "cuda" or a place cannot be met.
    """
    if not isinstance(wanted, Place):
        check_choice("gossip_device", wanted, GossipDevice)
    if wanted == "cpu":
        return None, "cpu, as asked for"
    place = wanted if isinstance(wanted, Place) else None
    why = _obstacle(plan) or (None if place else _misplaced(tensors))
    if why is None:
        place = place or Place(next(tensor.device for _, tensor in tensors))
        return place, str(place)
    if wanted != "auto":
        raise ConfigError(
            f"gossip_device={str(wanted)!r} cannot be met: {why}; use gossip_device='auto', which then "
            "averages in host memory"
        )
    return None, f"cpu: {why}"


def _obstacle(plan: Plan) -> str | None:
    """Why a plan cannot be carried out on a GPU."""
    algorithm, topology, compressor = plan.algorithm, plan.topology, plan.compressor
    if algorithm.asks_loss:
        return f"{type(algorithm).__name__} judges neighbours' models one by one, from host memory"
    if not algorithm.on_gpu:
        return f"{type(algorithm).__name__} works in host memory"
    if not has_gpu_kernels(compressor):
        return f"compressor {type(compressor).__name__} has no CUDA kernels for packets of a known length"
    if isinstance(topology, Hierarchical):
        return f"on {topology.name} the leaders of nodes average in host memory"
    if topology.degree > MOST_MESSAGES:
        return f"a rank hears {topology.degree} others at once, the CUDA kernels sum {MOST_MESSAGES}"
    return None


def _misplaced(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Why tensors cannot be averaged where they are."""
    homes: dict[torch.device, str] = {}
    for name, tensor in tensors:
        homes.setdefault(tensor.device, name)
    for device, name in homes.items():
        if device.type != "cuda":
            return f"{name} is on {device}"
    if len(homes) > 1:
        return "the model is on several devices: " + ", ".join(f"{n} on {d}" for d, n in homes.items())
    try:
        cuda.native()
    except SetupError as error:
        return str(error)
    return None


def compressor_at(place: Place | None, compressor: Compressor) -> Compressor:
    """What encodes vectors there."""
    return compressor if place is None else on_gpu(compressor, place.zeros(1, torch.int64))
