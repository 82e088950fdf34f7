"""What a gossip algorithm is: a name, its options, and the rule and mixers that it makes for a vector.

A ``Mixer`` turns a vector into packets and packets into a mixed vector; a ``Rule`` (``rule.py``) is
everything else that an algorithm does around a local step and a round. Both are pure: they do no
input or output, hold no rank and no clock. ``exchange.py`` moves the packets over a transport; the
deterministic local cluster and MPI run the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pydec.comm.transport import Transport
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import FrameError
from pydec.gossip.rule import LocalOptimizer, Rule
from pydec.registry import Registry
from pydec.topology.base import Topology

if TYPE_CHECKING:
    from pydec.gossip.asynchronous import Asynchronous

Order = Literal["atc", "cta"]
AfterDeath = Literal["go on", "restart", "stop"]
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
        x: float32 array of shape (n,), C-contiguous, or, of algorithms that are ``on_gpu``, a tensor on a
            GPU; borrowed for the mixer's life.
        compressor: how packets are encoded; for a tensor one of ``compress.gpu``.
        degree: the most neighbours heard in one round.
    """

    algorithm: str = ""
    """Registered name of the algorithm whose packets these are; packets of another are refused."""
    move_scale: float = 0.0
    """What makes ||W x - x||^2 of the squared distance by which a round moves x from the own packet; 0 where
    packets do not hold the vector itself."""
    forgiving: ClassVar[bool] = False
    """Whether packets that are none are left out and counted, where others raise an error."""
    prefix: ClassVar[int] = 0
    """Bytes that the mixer writes itself, in front of the compressor's payload."""

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        self.x = x
        self.compressor = compressor
        self.buckets = bucket_bounds(len(x), compressor.block, degree)
        self.round = 0
        """The round under way."""

    def place(self, rank: int, topology: Topology) -> None:  # noqa: B027  # most mixers know no ranks
        """An exchange takes the mixer: its rank, and who it will meet."""

    def open(self, total: float) -> None:  # noqa: B027  # most mixers need no notice
        """A round begins.

        Args:
            total: the sum of this rank's row of weights, its own included; 1 but for rounding,
                unless only the columns of the topology's matrices sum to 1.
        """

    def judge_by(self, loss: Callable[[Vector], float]) -> None:  # noqa: B027  # most judge nobody
        """Take the loss of a model on the batch of the coming step, for rules that ask for it."""

    def restart(self) -> None:  # noqa: B027  # most keep nothing of other ranks
        """See ``Rule.restart``."""

    def lose(self, peer: int) -> None:  # noqa: B027  # whoever keeps nothing of a peer loses nothing
        """A rank is dead: no packet comes from it or goes to it any more.

        Raises:
            PeerLost: the algorithm cannot go on without it; the message says what to use instead.
        """

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

    def alone(self, bucket: int) -> None:  # noqa: B027  # nothing changes for most
        """Finish one bucket of a round in which this rank hears nobody: nothing to do, unless overridden."""

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether a packet of that bucket is well formed; looked at after ``absorb`` has refused one."""
        start, stop = self.buckets[bucket]
        try:
            self.compressor.check(body, stop - start)
        except FrameError:
            return False
        return True

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
    after_death: ClassVar[AfterDeath] = "go on"
    """What a neighbour's death does: the survivors "go on" with the same equations and the weights that are
    left; "restart" their recursion besides, all in the same step (``Rule.restart``), because what the dead
    rank held is missing in its sums; or "stop", because the algorithm needs every rank."""
    lossless: ClassVar[bool] = False
    """Whether only uncompressed packets will do."""
    needs_lr: ClassVar[bool] = False
    """Whether the equations hold a learning rate; each parameter group then has a rule of its own."""
    needs_gradient: ClassVar[bool] = False
    """Whether the rule reads or replaces gradients."""
    takes_step: ClassVar[bool] = False
    """Whether the rule takes the local step itself, in place of the wrapped optimiser."""
    plain_mixing: ClassVar[bool] = True
    """Whether each rank's own steps are averaged and nothing corrects for what ranks do differently."""
    asynchronous: ClassVar[bool] = False
    """Whether ranks step at their own pace, by ``connect``'s exchange, in place of rounds."""
    windowed: ClassVar[bool] = False
    """Whether a round is on its way for ``local_steps`` steps, until the next one begins."""
    on_gpu: ClassVar[bool] = False
    """Whether the vectors of rules and mixers may lie on a GPU: all that touches them runs there too."""
    asks_loss: ClassVar[bool] = False
    """Whether rounds ask for the loss of models on the own batch; see ``DecentralizedOptimizer.judge``."""
    robust: ClassVar[bool] = False
    """Whether what liars among the neighbours can do to a rank is bounded."""
    adaptive: ClassVar[bool] = False
    """Whether the rule itself scales every coordinate by its own gradients."""
    order: Order = "atc"
    """"atc" adapts, then combines; "cta" combines the models of before the gradient, so that the
    packets travel during forward and backward."""

    @abstractmethod
    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Raise ConfigError, with what to use instead, for a combination that cannot work."""

    def check_local(self, local: LocalOptimizer) -> None:  # noqa: B027  # most cover every optimiser
        """Raise ConfigError for a local optimiser that the equations do not cover."""

    def connect(
        self, transport: Transport, topology: Topology, mixers: Sequence[Mixer], *, epoch: int, seed: int
    ) -> Asynchronous:
        """The exchange of an asynchronous algorithm.

        Args:
            transport: the stream to use.
            topology: checked.
            mixers: one per vector.
            epoch: written into every frame.
            seed: what randomised compressors and choices of partners draw from.
        """
        raise NotImplementedError(f"{type(self).__name__} works in rounds")

    def check_start(self, init: str) -> None:  # noqa: B027  # most find the mean of any start
        """Raise ConfigError where ranks that start from models of their own ("keep") would keep apart."""

    def rounds(self, topology: Topology) -> int:
        """Rounds of gossip after the local steps, one after the other: 1 unless overridden."""
        return 1

    @abstractmethod
    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """The mixer of one vector; ``x`` is borrowed."""

    def beside(self, x: Vector, compressor: Compressor, degree: int) -> Mixer | None:
        """The mixer of a vector that is averaged beside the parameters (BatchNorm's); None: plainly."""
        return None

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """What to do with one vector around its local steps and rounds; ``x`` is borrowed.

        Args:
            x: float32 array of shape (n,), C-contiguous.
            compressor: how packets are encoded.
            degree: the most neighbours heard in one round.
            local_steps: local steps between rounds.
        """
        return Rule(x, [self.mixer(x, compressor, degree)])


algorithms: Registry[Algorithm] = Registry("algorithm")
robust_rules: Registry[Algorithm] = Registry("robust rule")
"""Algorithms that bound what liars can do; each has an f, the number of liars among a rank's neighbours."""
