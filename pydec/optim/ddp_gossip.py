"""``DistributedDataParallel`` that sends nothing, for gossip around it."""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel

from pydec.errors import ConfigError
from pydec.optim.ddp_hook import check_ddp, done


def ddp_gossip(ddp: DistributedDataParallel) -> None:
    """Make a DDP module leave each rank its own gradients, for gossip by a DecentralizedOptimizer around it.

    For code that cannot part with its DDP wrapper: the hook sends nothing, and the optimiser, made with
    ``model=ddp.module`` and the peer of ``pydec.init()`` (under mpirun), averages the models with a few
    neighbours. DDP still compares the models when it is made and shares its bucket order once, after the
    first backward pass; no other step waits for all ranks.

    The hook does not average *gradients* with neighbours, though that looks closer to DDP: then nothing pulls
    the models together. With gradients G and a mixing matrix W, X <- X - lr W G leaves what was different
    different and adds lr (W - J) G in every step, a random walk away from the mean. Mixing the models,
    X <- W (X - lr G), shrinks differences by the graph's spectral gap in every round (Lian et al., "Can
    Decentralized Algorithms Outperform Centralized Algorithms?", NeurIPS 2017, arXiv:1705.09056).

    Raises:
        ConfigError: not a DDP module, or one that waits for all ranks in every step for other reasons.
    """
    check_ddp(ddp)
    if ddp.broadcast_buffers and any(True for _ in ddp.module.buffers()):
        raise ConfigError(
            "DDP with broadcast_buffers=True makes all ranks wait for rank 0's buffers in every step; "
            "use broadcast_buffers=False, and buffers='average' of DecentralizedOptimizer"
        )
    if ddp.find_unused_parameters and not ddp.static_graph:
        raise ConfigError(
            "DDP with find_unused_parameters=True makes all ranks wait for one another in every step; "
            "use static_graph=True if it is the same parameters that go unused in every step"
        )
    ddp.register_comm_hook(None, lambda state, bucket: done(bucket.buffer()))
