"""Ways to train one model on several ranks: pydec's, those of PyTorch and decent-dp over gloo, hivemind's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

import pydec

MakeOptimizer = Callable[[nn.Module], Optimizer]


class Racer(Protocol):
    """A model that is trained together with the other ranks'."""

    model: nn.Module
    """What forward and backward run on."""

    def step(self) -> None:
        """Use the gradients of the last backward."""

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next step."""

    def averaged(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The exact average of all ranks' models, for evaluation; all ranks enter together."""

    def barrier(self) -> None:
        """Return when all ranks have come."""

    def close(self) -> None:
        """Finish what is under way."""


def start_gloo() -> tuple[int, int]:
    """Join the gloo process group of this MPI job; returns (rank, size)."""
    rank, size = int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    local = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": local}
    os.environ.setdefault("LOCAL_RANK", os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    return rank, size


class Ours:
    """pydec: ``algorithm``, ``topology``, ``compressor`` and whatever else DecentralizedOptimizer takes."""

    def __init__(self, model: nn.Module, make: MakeOptimizer, peer: Any, options: dict[str, Any]) -> None:
        self.model = model
        self._peer = peer
        self._optimizer = pydec.DecentralizedOptimizer(make(model), peer, model=model, **options)

    def step(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad()

    def set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        with self._optimizer.averaged():
            yield self.model

    def barrier(self) -> None:
        from pydec.train.together import table

        table(self._peer, [0.0])

    def close(self) -> None:
        self._optimizer.close()


class Gloo:
    """What the peers share: a torch optimiser on a wrapped module, and a barrier by all-reduce."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        own = [p.detach().clone() for p in self.model.parameters()]
        with torch.no_grad():
            for p in self.model.parameters():
                dist.all_reduce(p)
                p.div_(dist.get_world_size())
        yield self.model
        with torch.no_grad():
            for p, saved in zip(self.model.parameters(), own, strict=True):
                p.copy_(saved)

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        dist.barrier()


def ddp(model: nn.Module, make: MakeOptimizer) -> Gloo:
    """DistributedDataParallel with its defaults."""
    wrapped = nn.parallel.DistributedDataParallel(model)
    return Gloo(wrapped, make(wrapped))


def ddp_fp16(model: nn.Module, make: MakeOptimizer) -> Gloo:
    """DDP whose gradients travel as float16."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return Gloo(wrapped, make(wrapped))


def ddp_powersgd(model: nn.Module, make: MakeOptimizer, rank: int = 2, warmup: int = 10) -> Gloo:
    """DDP with the PowerSGD hook; one bucket, since with more the hook hangs on gloo."""
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    wrapped = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=10_000)
    state = powerSGD_hook.PowerSGDState(
        None, matrix_approximation_rank=rank, start_powerSGD_iter=warmup, min_compression_rate=1
    )
    wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return Gloo(wrapped, make(wrapped))


class LocalSGD(Gloo):
    """Post-local SGD: all-reduced gradients for ``warmup`` steps, then models averaged every ``period``.

    Source: Lin, Stich, Patel, Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020,
    arXiv:1808.07217, algorithm 2; by PyTorch's own averager.
    """

    def __init__(self, model: nn.Module, make: MakeOptimizer, period: int = 8, warmup: int = 50) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook as hook
        from torch.distributed.algorithms.model_averaging import averagers
        from torch.distributed.optim import PostLocalSGDOptimizer

        alone, _ = dist.new_subgroups(group_size=1)
        wrapped = nn.parallel.DistributedDataParallel(model)
        state = hook.PostLocalSGDState(process_group=None, subgroup=alone, start_localSGD_iter=warmup)
        wrapped.register_comm_hook(state, hook.post_localSGD_hook)
        averager = averagers.PeriodicModelAverager(period=period, warmup_steps=warmup)
        super().__init__(wrapped, PostLocalSGDOptimizer(make(wrapped), averager))


class DecentDP(Gloo):
    """decent-dp: bucket-wise update and gossip from hooks of the backward pass.

    ``ranks_per_host`` is how many ranks its graphs take to be on one host; as many as MPI says if None.
    """

    def __init__(
        self,
        model: nn.Module,
        make: MakeOptimizer,
        topology: str = "one-peer-exp",
        ranks_per_host: int | None = None,
    ) -> None:
        from decent_dp.ddp import DecentralizedDataParallel
        from loguru import logger

        logger.remove()

        class Given(nn.Module):
            """The bucket's parameters as a module, which is what ``make`` takes."""

            def __init__(self, pairs: list[tuple[str, torch.Tensor]]) -> None:
                super().__init__()
                for number, (_, parameter) in enumerate(pairs):
                    self.register_parameter(str(number), parameter)  # type: ignore[arg-type]

        self._optimizers: list[Optimizer] = []

        def make_bucket(pairs: list[tuple[str, torch.Tensor]]) -> Optimizer:
            self._optimizers.append(make(Given(pairs)))
            return self._optimizers[-1]

        wrapped = DecentralizedDataParallel(
            model, make_bucket, topology=topology, _local_world_size=ranks_per_host
        )
        super().__init__(wrapped, None)  # type: ignore[arg-type]  # it has many

    def step(self) -> None:
        """Nothing: the hooks have done it."""

    def set_lr(self, lr: float) -> None:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr


class Hivemind(Gloo):
    """hivemind's averager: local steps, and after every ``period`` the models averaged in one group of all.

    The first average is compared with an exact one: some combinations of versions report success and
    average nothing.
    """

    def __init__(
        self, model: nn.Module, make: MakeOptimizer, period: int = 8, compression: str = "float16"
    ) -> None:
        import hivemind
        from hivemind import compression as codec
        from hivemind.averaging import DecentralizedAverager

        super().__init__(model, make(model))
        self._period, self._steps, self._checked = period, 0, False
        address = f"/ip4/{_own_address()}/tcp/0"
        found: list[list[str]] = [[]]
        rank, size = dist.get_rank(), dist.get_world_size()
        if rank == 0:
            self._dht = hivemind.DHT(host_maddrs=[address], start=True)
            found = [[str(visible) for visible in self._dht.get_visible_maddrs()]]
        dist.broadcast_object_list(found, 0)
        if rank:
            self._dht = hivemind.DHT(host_maddrs=[address], initial_peers=found[0], start=True)
        codecs = {"none": codec.NoCompression, "float16": codec.Float16Compression}
        self._averager = DecentralizedAverager(
            [p.detach().clone() for p in model.parameters()],
            self._dht,
            prefix="race",
            target_group_size=size,
            min_group_size=size,
            min_matchmaking_time=1.0,
            request_timeout=0.8,
            compression=codecs[compression](),
            allow_state_sharing=False,
            start=True,
        )
        dist.barrier()

    def step(self) -> None:
        super().step()
        self._steps += 1
        if self._steps % self._period == 0:
            self._average()

    def _average(self) -> None:
        parameters = list(self.model.parameters())
        expected = None
        if not self._checked:
            expected = parameters[0].detach().clone()
            dist.all_reduce(expected)
            expected /= dist.get_world_size()
        with torch.no_grad():
            with self._averager.get_tensors() as tensors:
                for tensor, parameter in zip(tensors, parameters, strict=True):
                    tensor.copy_(parameter)
            self._averager.step(timeout=120.0, allow_retries=True)
            with self._averager.get_tensors() as tensors:
                for tensor, parameter in zip(tensors, parameters, strict=True):
                    parameter.copy_(tensor)
        if expected is not None:
            off = float((parameters[0].detach() - expected).abs().max())
            if off > 0.01 * float(expected.abs().max()):
                raise RuntimeError(f"hivemind reported an average that is off by {off:.3g}")
            self._checked = True

    def close(self) -> None:
        super().close()
        self._averager.shutdown()
        self._dht.shutdown()


def _own_address() -> str:
    """This host's address as the others know it."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


_MODULES = {
    "decent-dp": ("decent_dp", "pip install decent-dp"),
    "hivemind": ("hivemind", "pip install hivemind (its 8-bit compression needs NumPy below 2.4)"),
}


def unavailable(method: str) -> str | None:
    """Why a method cannot race here, and what would help; None if it can."""
    module, cure = _MODULES.get(method, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return f"{method} is not installed: {cure}"
    return None


PEERS: dict[str, Callable[..., Gloo]] = {
    "ddp": ddp,
    "ddp-fp16": ddp_fp16,
    "ddp-powersgd": ddp_powersgd,
    "post-local-sgd": LocalSGD,
    "decent-dp": DecentDP,
    "hivemind": Hivemind,
}
