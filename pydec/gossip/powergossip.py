"""PowerGossip: every edge's difference by a step of power iteration that starts where the last ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import FrameError
from pydec.gossip.base import Algorithm, Order, algorithms
from pydec.gossip.checks import check_order, require_lossless, require_static_connected, require_symmetric
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule
from pydec.topology.base import Topology

_CHUNK = 1 << 15  # elements whose products are summed in double at a time: 256 KiB


class Matrix(NamedTuple):
    """A part of the vector, row after row: ``rows * columns`` elements from ``start``.

    The parts of the edges' vectors that belong to it begin at ``left`` and ``right``.
    """

    start: int
    rows: int
    columns: int
    left: int
    right: int

    @property
    def stop(self) -> int:
        """Where it ends in the vector."""
        return self.start + self.rows * self.columns

    def side(self, vector: Vector, *, left: bool) -> Vector:
        """Its part of an edge's left or right vector."""
        if left:
            return vector[self.left : self.left + self.rows]
        return vector[self.right : self.right + self.columns]


class PowerMixer(EdgeMixer):
    """Two vectors per edge and matrix, the same bits at both ends: unit directions, the last difference's.

    Everything of an edge is the lower rank's minus the higher's, so both ends move by the same amount in
    opposite directions and the mean over the ranks stays, up to the rounding of each model.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        super().__init__(x, compressor, degree)
        self.buckets = [(0, x.size)] if x.size else []
        self.turn = 0
        """Rounds so far: even ones multiply from the right, odd ones from the left."""
        self._matrices: list[Matrix] = []
        self._plain: list[tuple[int, int]] = list(self.buckets)
        self._sizes = (0, 0)
        self.left: dict[int, Vector] = {}
        self.right: dict[int, Vector] = {}
        self._products: dict[int, Vector] = {}
        self._room: NDArray[np.float64] = np.empty(0)

    def arrange(self, tensors: Sequence[tuple[int, int, int]]) -> None:
        """Say where the matrices lie; before ``meet``.

        Args:
            tensors: (start, rows, columns) of each, in order. Those that two thin vectors do not shorten
                are sent as they are, as everything is unless this is called.
        """
        self._matrices, self._plain = [], []
        left = right = 0
        for start, rows, columns in tensors:
            if rows + columns < rows * columns:
                self._matrices.append(Matrix(start, rows, columns, left, right))
                left, right = left + rows, right + columns
            elif rows * columns:
                self._plain.append((start, start + rows * columns))
        self._sizes = (left, right)

    def meet(self, rank: int, peers: Sequence[int]) -> None:
        """Draw the directions to start from: the same at both ends of an edge."""
        super().meet(rank, peers)
        self.turn = 0
        for kept in (self.left, self.right, self._products):
            kept.clear()
        longest = max(self._sizes) + self._plain_size
        largest = max((matrix.rows * matrix.columns for matrix in self._matrices), default=0)
        widest = max((matrix.columns for matrix in self._matrices), default=0)
        self._room = np.empty(max(min(_CHUNK, largest), widest))
        for peer in peers:
            random = np.random.default_rng((min(rank, peer), max(rank, peer)))
            self.left[peer], self.right[peer] = (aligned_floats(size) for size in self._sizes)
            for matrix in self._matrices:
                for vector, left in ((self.left[peer], True), (self.right[peer], False)):
                    side = matrix.side(vector, left=left)
                    _unit(random.random(side.size).astype(np.float32) - np.float32(0.5), side)
            self._products[peer] = aligned_floats(longest)

    @property
    def _plain_size(self) -> int:
        return sum(stop - start for start, stop in self._plain)

    @property
    def state_bytes(self) -> int:
        """Directions, own products and the room to sum them."""
        return super().state_bytes + sum(p.nbytes for p in self._products.values()) + self._room.nbytes

    def capacity(self, bucket: int) -> int:
        """Of the longer side."""
        return self.compressor.max_bytes(max(self._sizes) + self._plain_size)

    def encode_for(self, peer: int, bucket: int, out: Bytes, key: int = 0) -> int:
        """The matrices' products with the edge's directions, then what is sent as it is."""
        from_right = self.turn % 2 == 0
        count = self._sizes[0 if from_right else 1]
        products = self._products[peer][: count + self._plain_size]
        for matrix in self._matrices:
            values = self.x[matrix.start : matrix.stop].reshape(matrix.rows, matrix.columns)
            target = matrix.side(products, left=from_right)
            if from_right:
                self._times(values, matrix.side(self.right[peer], left=False), target)
            else:
                self._transposed_times(values, matrix.side(self.left[peer], left=True), target)
        for start, stop in self._plain:
            products[count : count + stop - start] = self.x[start:stop]
            count += stop - start
        return self.compressor.encode_into(products, out)

    def _times(self, values: NDArray[np.float32], direction: Vector, out: Vector) -> None:
        """A v, summed in double in an order that depends on the shape alone."""
        rows, columns = values.shape
        step = max(1, self._room.size // columns)
        for first in range(0, rows, step):
            part = values[first : first + step]
            room = self._room[: part.size].reshape(part.shape)
            np.multiply(part, direction, out=room, dtype=np.float64)
            out[first : first + step] = np.add.reduce(room, axis=1)

    def _transposed_times(self, values: NDArray[np.float32], direction: Vector, out: Vector) -> None:
        """A^T u, in the same way."""
        rows, columns = values.shape
        step, total = max(1, self._room.size // columns), np.zeros(columns)
        for first in range(0, rows, step):
            part = values[first : first + step]
            room = self._room[: part.size].reshape(part.shape)
            np.multiply(part, direction[first : first + step, None], out=room, dtype=np.float64)
            total += np.add.reduce(room, axis=0)
        out[:] = total

    def absorb_from(
        self, peers: Sequence[int], bucket: int, packets: Sequence[Bytes], weights: Sequence[float]
    ) -> None:
        """X -= w_ij (X_i - X_j) v v^T (from the left: u u^T (X_i - X_j)); the product is the new u (or v)."""
        from_right = self.turn % 2 == 0
        count = self._sizes[0 if from_right else 1]
        heard = [self.compressor.view(packet, count + self._plain_size) for packet in packets]
        differences = []
        for peer, theirs in zip(peers, heard, strict=True):
            difference = self._products[peer][:count]
            a, b = (difference, theirs[:count]) if self.rank < peer else (theirs[:count], difference)
            differences.append(np.subtract(a, b, out=difference))
        signed = [-w if self.rank < peer else w for peer, w in zip(peers, weights, strict=True)]
        for matrix in self._matrices:
            new = [matrix.side(difference, left=from_right) for difference in differences]
            known = self.right if from_right else self.left
            old = [matrix.side(known[peer], left=not from_right) for peer in peers]
            left, right = (new, old) if from_right else (old, new)
            x = self.x[matrix.start : matrix.stop]
            kernels.powersgd_accumulate(left, right, signed, matrix.columns, x)
            next_known = self.left if from_right else self.right
            for peer, vector in zip(peers, new, strict=True):
                _unit(vector, matrix.side(next_known[peer], left=from_right))
        for start, stop in self._plain:
            x = self.x[start:stop]
            others = [vector[count : count + x.size] for vector in heard]
            kernels.mix([x, *others], [1.0 - sum(weights), *weights], out=x)
            count += x.size
        self.turn += 1

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether it is a packet of this turn."""
        try:
            self.compressor.view(body, self._sizes[self.turn % 2] + self._plain_size)
        except FrameError:
            return False
        return True

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The directions of every edge."""
        found = {f"left.{peer}": vector for peer, vector in self.left.items()}
        return found | {f"right.{peer}": vector for peer, vector in self.right.items()}


def _unit(vector: Vector, out: Vector) -> None:
    """out = vector / ||vector||; unchanged if that is no direction, because both ends agree there."""
    size = kernels.sqnorm(vector) ** 0.5
    if np.isfinite(size) and size > np.finfo(np.float32).tiny:
        np.divide(vector, np.float32(size), out=out)


class PowerRule(Rule):
    """Tells the mixer where matrices lie, and keeps its turn in checkpoints."""

    def __init__(self, x: Vector, mixer: PowerMixer) -> None:
        super().__init__(x, [mixer])
        self._mixer = mixer

    def arrange(self, tensors: Sequence[tuple[int, int, int]]) -> None:
        """See ``PowerMixer.arrange``."""
        self._mixer.arrange(tensors)

    def numbers(self) -> dict[str, float]:
        """The turn."""
        return {"turn": float(self._mixer.turn)}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._mixer.turn = int(numbers["turn"])


@algorithms.register("powergossip")
@dataclass(frozen=True)
class PowerGossip(Algorithm):
    """Low-rank differences along every edge, nothing to tune: one thin vector per matrix. Static symmetric.

    For the edge between i and j > i and a matrix X of the model: p = (X_i - X_j) q / ||q|| in even rounds,
    X_i -= w_ij p q^T / ||q||, X_j += the same; q = (X_i - X_j)^T p / ||p|| and likewise in odd ones. A rank
    sends X q / ||q|| or X^T p / ||p||: (rows + columns) / 2 numbers in the mean of two rounds. p and q stay
    with the edge, so that rounds follow the leading directions of a difference that changes slowly.

    Every tensor of two dimensions and more is a matrix of its first dimension by the rest; others travel as
    they are. Projections never overshoot, so there is no consensus step size, and the mean over the ranks is
    kept. More rounds per step, mixing="fixed:rounds=2" with order=atc, send as much as a higher rank.

    Source: Vogels, Karimireddy, Jaggi, "Practical Low-Rank Communication Compression in Decentralized Deep
    Learning", NeurIPS 2020, arXiv:2008.01425, algorithm 1.
    """

    budget: ClassVar[int] = 2
    tolerates_loss: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    order: Order = "cta"

    def __post_init__(self) -> None:
        check_order("powergossip", self.order)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse directed graphs, graphs that change, whose edges would start anew, and more compression."""
        require_symmetric("powergossip", topology)
        require_static_connected("powergossip", topology)
        require_lossless("powergossip", compressor, "it compresses itself, and both ends must agree")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> PowerMixer:
        """Directions are drawn when the neighbours are known."""
        return PowerMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """Learns from ``arrange`` where the matrices are."""
        return PowerRule(x, self.mixer(x, compressor, degree))
