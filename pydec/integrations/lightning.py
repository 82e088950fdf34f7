"""A strategy for Lightning: ``Trainer(strategy=GossipStrategy(peer))`` decentralises a module's training.

Every peer runs a Trainer. Modules stay as they are: the strategy wraps the optimiser that
``configure_optimizers`` returns, gives every peer its share of each DataLoader, and takes means over the
peers of what is logged with ``sync_dist=True``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.distributed import ReduceOp

from pydec.comm.collect import broadcast, ring_mean
from pydec.errors import ConfigError
from pydec.optim import DecentralizedOptimizer
from pydec.peer import Peer


class ClosureFirst(DecentralizedOptimizer):
    """Computes the gradient, which Lightning hands to ``step``, before it mixes: packets hide behind it."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As of ``DecentralizedOptimizer``; for optimisers that call the closure once, all but LBFGS."""
        loss = None if closure is None else closure()
        super().step()
        return loss


class GossipStrategy(ParallelStrategy):
    """One peer of a decentralised training, which gossips in its optimiser's steps.

    The Trainer's ``global_rank`` and ``world_size`` are the peer's. Rank 0 writes checkpoints and logs, of
    its own model; ``with trainer.optimizers[0].averaged():`` shows all peers' mean. Every peer takes as many
    steps: the ``DistributedSampler`` that the Trainer puts into DataLoaders sees to that.

    Args:
        peer: of ``pydec.init()``; close it yourself, after ``fit``.
        device: of the model, such as "cpu" or "cuda:0".
        **options: of ``DecentralizedOptimizer``, such as ``compressor="int8"``; ``model`` is the module.

    Raises:
        ConfigError: ``configure_optimizers`` returns another number of optimisers than one, or an option or
            combination cannot work.
    """

    strategy_name = "pydec"
    optimizers: Any

    def __init__(self, peer: Peer, device: str | torch.device = "cpu", **options: Any) -> None:
        self.peer, self._device, self._options = peer, torch.device(device), options
        environment = LightningEnvironment()  # else Lightning would ask MPI, to start DDP
        super().__init__(parallel_devices=[self._device], cluster_environment=environment)

    @property
    def root_device(self) -> torch.device:
        """Of the model."""
        return self._device

    @property
    def global_rank(self) -> int:
        """The peer's rank."""
        return self.peer.rank

    @property
    def local_rank(self) -> int:
        """0: one Trainer has one device."""
        return 0

    @property
    def node_rank(self) -> int:
        """The peer's rank, as if each were a node."""
        return self.peer.rank

    @property
    def world_size(self) -> int:
        """How many peers there are."""
        return self.peer.size

    @property
    def is_distributed(self) -> bool:
        """Whether samplers are to be split."""
        return self.peer.size > 1

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """This peer's share."""
        return {"num_replicas": self.peer.size, "rank": self.peer.rank}

    def setup_environment(self) -> None:
        """See ``Strategy``."""
        super().setup_environment()
        rank_zero_only.rank = self.peer.rank

    def model_to_device(self) -> None:
        """See ``Strategy``."""
        assert self.model is not None
        self.model.to(self._device)

    def setup_optimizers(self, trainer: Any) -> None:
        """See ``Strategy``; wraps what the module returns, unless it is decentralised already."""
        super().setup_optimizers(trainer)
        if len(self.optimizers) != 1:
            raise ConfigError(
                f"configure_optimizers of {type(self.lightning_module).__name__} returned "
                f"{len(self.optimizers)} optimizers, expected one; give it a parameter group for each part"
            )
        (own,) = self.optimizers
        if not isinstance(own, DecentralizedOptimizer):
            self.optimizers = [ClosureFirst(own, self.peer, model=self.lightning_module, **self._options)]

    def barrier(self, name: str | None = None) -> None:
        """Wait for all peers."""
        ring_mean(self.peer.transport, np.zeros(self.peer.size))

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """The object of one peer, pickled: peers of one job trust one another as far as its programs do."""
        data = np.frombuffer(pickle.dumps(obj), np.uint8).copy() if self.peer.rank == src else None
        length = np.array([0 if data is None else data.size], np.int64)
        broadcast(self.peer.transport, length.view(np.uint8), src)
        if data is None:
            data = np.empty(int(length[0]), np.uint8)
        broadcast(self.peer.transport, data, src)
        return obj if self.peer.rank == src else pickle.loads(data.tobytes())

    def reduce(self, tensor: Any, group: Any | None = None, reduce_op: Any = "mean") -> Any:
        """The mean or sum of a tensor over all peers, which call this together; for metrics.

        Raises:
            ConfigError: another operation.
        """
        if not isinstance(tensor, torch.Tensor):
            return tensor
        known = {"mean": 1, "avg": 1, "sum": self.peer.size, ReduceOp.AVG: 1, ReduceOp.SUM: self.peer.size}
        factor = known.get(reduce_op.lower() if isinstance(reduce_op, str) else reduce_op or "mean")
        if factor is None:
            raise ConfigError(f"reduce_op={reduce_op!r} is not supported by gossip; use 'mean' or 'sum'")
        values = tensor.detach().to("cpu", torch.float64, copy=True).reshape(-1).numpy()
        ring_mean(self.peer.transport, values)
        values *= factor
        whole = not (tensor.is_floating_point() or factor == 1)
        result = torch.from_numpy(np.rint(values) if whole else values).reshape(tensor.shape)
        return result.to(
            tensor.device, tensor.dtype if tensor.is_floating_point() or whole else torch.float32
        )

    def all_gather(
        self, tensor: torch.Tensor, group: Any | None = None, sync_grads: bool = False
    ) -> torch.Tensor:
        """Refuse: gossip gathers nothing.

        Raises:
            ConfigError: always, with more than one peer.
        """
        if self.peer.size == 1:
            return tensor
        raise ConfigError(
            f"all_gather of a tensor of shape {tuple(tensor.shape)}: no peer holds what all have; log its "
            "mean with sync_dist=True"
        )

    def on_train_end(self) -> None:
        """Wait for the packets that are under way."""
        for wrapped in self.optimizers:
            if isinstance(wrapped, DecentralizedOptimizer):
                wrapped.close()
        super().on_train_end()
