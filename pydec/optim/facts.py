"""What all ranks must share before they train together, in words that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch

import pydec
from pydec.comm.layout import node_layout
from pydec.comm.transport import Transport
from pydec.comm.view import View
from pydec.compress.base import Compressor
from pydec.gossip.base import Algorithm
from pydec.optim.arena import Arena
from pydec.topology.base import Topology, topologies


class PeerLike(Protocol):
    """What an optimiser needs of a running peer."""

    rank: int
    size: int
    view: View
    transport: Transport

    def check(self) -> None:
        """Raise Stopped once the job is asked to stop."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raise MismatchError unless all ranks hold the same facts."""


_PAGE_BYTES = 32_000  # what one agreement carries comfortably


def find_nodes(spec: str, peer: PeerLike) -> list[int] | None:
    """The node of every rank, where the topology asks for it; all ranks call it together.

    Raises:
        MismatchError: ranks name different topologies.
        PeerTimeout, PeerLost: a rank did not take part.
    """
    peer.agree({"topology": spec})  # before ranks that differ wait for one another's host names
    return node_layout(peer.transport) if topologies.takes(spec, "nodes") else None


def make_topology(spec: str, peer: PeerLike, nodes: Sequence[int] | None) -> Topology:
    """The topology that a specification names, for all ranks of this job.

    Raises:
        ConfigError: unknown name or option, or one that does not fit the job.
    """
    return topologies.make(spec, size=peer.size, seed=peer.view.seed, nodes=nodes)


def facts(
    topology: Topology,
    compressor: Compressor,
    algorithm: Algorithm,
    policies: Mapping[str, str],
    arenas: Iterable[Arena],
) -> Iterator[dict[str, str]]:
    """Version and configuration, then the model's layout tensor by tensor, in pages to agree on in turn."""
    spans = [(span, arena.dtype) for arena in arenas for span in arena.spans]
    identity = f", {topology.identity}" if topology.identity else ""
    page = {
        "pydec version": pydec.__version__,
        "topology": f"{topology.name} of {topology.size}{identity}",
        "compressor": repr(compressor),
        "algorithm": repr(algorithm),
        "number of averaged tensors": str(len(spans)),
        **policies,
    }
    used = 0
    for span, dtype in spans:
        name, shape = (
            f"{span.name}",
            f"{str(dtype).removeprefix('torch.')} of shape {tuple(span.tensor.shape)}",
        )
        used += len(name) + len(shape) + 10
        if used > _PAGE_BYTES:
            yield page
            page, used = {}, 0
        page[name] = shape
    yield page


def trainable(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module | None
) -> list[tuple[str, torch.Tensor]]:
    """(name, parameter) of every parameter with ``requires_grad``, in the optimiser's order, once each."""
    names = {id(p): name for name, p in model.named_parameters()} if model is not None else {}
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for g, group in enumerate(optimizer.param_groups):
        for i, parameter in enumerate(group["params"]):
            if parameter.requires_grad:
                name = names.get(id(parameter), f"parameter {i} of group {g}")
                found.setdefault(id(parameter), (name, parameter))
    return list(found.values())


def float_buffers(model: torch.nn.Module | None) -> list[tuple[str, torch.Tensor]]:
    """(name, buffer) of every floating-point buffer of a module, such as BatchNorm's statistics."""
    if model is None:
        return []
    return [(name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point()]
