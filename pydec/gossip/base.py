"""What a gossip algorithm is: state on one float32 vector, packets out, packets in.

A ``Mixer`` is pure: it does no input or output, holds no rank and no clock. ``exchange.py`` moves its
packets over a transport; the deterministic local cluster and MPI run the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.registry import Registry
from pydec.topology.base import Topology

Order = Literal["atc", "cta"]
ORDERS: tuple[Order, ...] = ("atc", "cta")

BUCKET_ELEMENTS = 1 << 24
"""64 MiB of float32. Each bucket is a rendezvous with every neighbour, which costs more than the cache
gains where ranks share cores: 40 MB in one bucket took 0.75 of the processor time of ten."""
_MIN_BUCKET_ELEMENTS = 1 << 12


def bucket_bounds(n: int, block: int, degree: int) -> list[tuple[int, int]]:
    """Cut [0, n) into buckets that are encoded and sent one by one.

    Args:
        n: elements of the vector.
        block: elements that the compressor encodes independently; 0 keeps the vector whole.
        degree: neighbours that are heard at once; more neighbours make smaller buckets, so that
            one bucket of each fits in one model-sized buffer.

    Returns:
        (start, stop) pairs, in order; every start is a multiple of ``block``.
    """
    if n == 0:
        return []
    if block == 0:
        return [(0, n)]
    wanted = max(_MIN_BUCKET_ELEMENTS, min(BUCKET_ELEMENTS, n // max(1, degree)))
    step = -(-wanted // block) * block
    return [(start, min(start + step, n)) for start in range(0, n, step)]


class Mixer(ABC):
    """State of one gossip algorithm on one vector ``x``, which it changes in place.

    Args:
        x: float32 array of shape (n,), C-contiguous; borrowed for the mixer's life.
        compressor: how packets are encoded.
        degree: the most neighbours heard in one round.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        self.x = x
        self.compressor = compressor
        self.buckets = bucket_bounds(x.size, compressor.block, degree)

    @property
    def state_bytes(self) -> int:
        """Bytes that the algorithm holds beyond ``x``."""
        return sum(part.nbytes for part in self.state().values())

    def capacity(self, bucket: int) -> int:
        """Largest packet of that bucket, in bytes."""
        start, stop = self.buckets[bucket]
        return self.compressor.max_bytes(stop - start)

    @abstractmethod
    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Write this round's packet of one bucket into ``out``; returns its length in bytes.

        Encoding twice without ``absorb`` between gives the same bytes.

        Args:
            bucket: which one.
            out: at least ``capacity(bucket)`` bytes.
            key: what a randomised compressor draws from; another one in every round.
        """

    @abstractmethod
    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Finish one bucket of the round.

        Args:
            bucket: which one.
            own: the packet that ``encode`` wrote for it.
            packets: what arrived, in increasing order of the senders' ranks.
            weights: their weights; the own weight is 1 - sum(weights), so a neighbour that did
                not answer is left out of both and its weight returns to the own model.

        Raises:
            FrameError: a packet is malformed; state is then unchanged.
        """

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """Vectors that a checkpoint must hold, by name (views, not copies)."""
        return {}


class Algorithm(ABC):
    """A named way to combine local steps with gossip."""

    budget: ClassVar[int]
    """Model-sized buffers that the algorithm may use beyond parameters, gradients and optimiser."""
    averages: ClassVar[Literal["parameters", "gradients"]] = "parameters"
    tolerates_loss: ClassVar[bool] = True
    """Whether a round may go on without a neighbour's packet."""
    order: Order = "atc"
    """"atc" adapts, then combines; "cta" combines the models of before the gradient, so that the
    packets travel during forward and backward."""

    @abstractmethod
    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Raise ConfigError, with what to use instead, for a combination that cannot work."""

    @abstractmethod
    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """State for one vector; ``x`` is borrowed."""


algorithms: Registry[Algorithm] = Registry("algorithm")
