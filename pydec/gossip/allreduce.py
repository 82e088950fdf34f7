"""The baseline that pydec is compared with: average the gradients of all ranks in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, Order, algorithms
from pydec.topology.base import Topology


@algorithms.register("allreduce")
@dataclass(frozen=True)
class AllReduce(Algorithm):
    """Synchronous data-parallel SGD: the mean gradient by a ring all-reduce, every step.

    What PyTorch's DistributedDataParallel computes. It waits for the slowest rank in every step
    and ends with any rank; it is here to be compared with. The topology is not used.

    Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations", J. Parallel Distrib. Comput. 2009, section 3.
    """

    budget: ClassVar[int] = 2
    after_death: ClassVar[AfterDeath] = "stop"
    averages: ClassVar[Literal["parameters", "gradients"]] = "gradients"
    lossless: ClassVar[bool] = True
    plain_mixing: ClassVar[bool] = False
    order: ClassVar[Order] = "atc"  # type: ignore[misc]  # fixed: there is no other order

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression: the ring adds gradients up and has no compressed sum."""
        if not compressor.lossless:
            raise ConfigError(
                f"allreduce adds up plain gradients and cannot use compressor {type(compressor).__name__}; "
                "use compressor='none', or algorithm='dpsgd' or 'choco' with this compressor"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """No mixer: gradients are averaged by ``comm.collect.ring_mean``."""
        raise ConfigError("allreduce averages gradients and has no gossip mixer")
