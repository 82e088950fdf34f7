"""``DecentralizedOptimizer``: any torch optimiser, with gossip in place of all-reduce."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch

from pydec import compress, gossip, kernels
from pydec.comm.collect import broadcast, ring_mean
from pydec.comm.transport import Stream
from pydec.compress.base import Compressor
from pydec.errors import ConfigError, NonFiniteError
from pydec.gossip.base import Algorithm
from pydec.gossip.exchange import Exchange, Late
from pydec.optim.arena import Arena, make_arenas
from pydec.optim.facts import PeerLike, facts, float_buffers, make_topology, trainable
from pydec.optim.gradients import GradientAverager, first_nonfinite
from pydec.topology.base import Topology

Buffers = Literal["average", "local"]
NanPolicy = Literal["raise", "skip", "continue"]
Init = Literal["broadcast", "keep"]


class DecentralizedOptimizer(torch.optim.Optimizer):
    """Wraps a torch optimiser so that ``step`` also averages the model with a few neighbours.

    Parameter groups, state, learning-rate schedulers, gradient clipping and ``zero_grad`` work as
    with the wrapped optimiser. All ranks construct it together and call ``step`` equally often.

    Args:
        optimizer: any ``torch.optim.Optimizer``; its dense, real CPU parameters with
            ``requires_grad`` are averaged, frozen ones are left alone.
        peer: what ``pydec.init()`` returned.
        topology: specification or object: who averages with whom, per round.
        compressor: specification or object: how models travel.
        algorithm: specification or object: "dpsgd", "choco", "allreduce", with options.
        model: the module that the parameters belong to; gives error messages their names, and its
            floating-point buffers (BatchNorm statistics) to ``buffers``.
        buffers: "average" mixes the model's floating-point buffers each round, uncompressed;
            "local" leaves each rank its own.
        nan_policy: what to do when a gradient holds NaN or infinity: "raise" NonFiniteError,
            "skip" the local update of this step (the rank still gossips), or "continue".
        init: "broadcast" starts all ranks from rank 0's parameters and buffers, "keep" from
            their own.
        late: what to do when a neighbour misses the deadline: "raise" PeerTimeout or "drop" it
            for the round.

    Raises:
        ConfigError: a name, option or combination that cannot work, or a parameter that cannot be
            averaged.
        MismatchError: ranks disagree on the model, the configuration or the version.

    Memory: two model-sized buffers for dpsgd, three for choco, whatever the number of neighbours
    (``buffer_bytes`` has the number); a steady-state step allocates none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        peer: PeerLike,
        *,
        topology: str | Topology = "one-peer-exponential",
        compressor: str | Compressor = "none",
        algorithm: str | Algorithm = "dpsgd",
        model: torch.nn.Module | None = None,
        buffers: Buffers = "average",
        nan_policy: NanPolicy = "raise",
        init: Init = "broadcast",
        late: Late = "raise",
    ) -> None:
        _check_choice("buffers", buffers, Buffers)
        _check_choice("nan_policy", nan_policy, NanPolicy)
        _check_choice("init", init, Init)
        _check_choice("late", late, Late)
        super().__init__([{"params": []}], {})
        self.optimizer = optimizer
        self.peer = peer
        self.nan_policy = nan_policy
        self._link()
        if isinstance(topology, str):
            topology = make_topology(topology, peer)
        self.topology = topology
        self.compressor = compress.make(compressor) if isinstance(compressor, str) else compressor
        self.algorithm = gossip.make(algorithm) if isinstance(algorithm, str) else algorithm
        self._check_combination(late)

        self._parameters = trainable(optimizer, model)
        if not self._parameters:
            raise ConfigError(
                "the optimizer has no parameter with requires_grad=True; there is nothing to train or average"
            )
        self._layout = _layout(optimizer)
        self._arenas = make_arenas(self._parameters)
        self._buffer_arenas = make_arenas(float_buffers(model)) if buffers == "average" else []
        policies = {"buffers": buffers, "late": late, "init": init}
        for page in facts(self.topology, self.compressor, self.algorithm, policies, self._all_arenas):
            peer.agree(page)
        if init == "broadcast":
            for arena in self._all_arenas:
                broadcast(peer.transport, arena.flat.view(torch.uint8).numpy())
        self.rounds = 0
        self._wait_s = 0.0
        self._averager: GradientAverager | None = None
        self._exchange: Exchange | None = None
        if self.algorithm.averages == "gradients":
            self._averager = GradientAverager(peer.transport, self._parameters)
        else:
            self._exchange = self._make_exchange(late)

    def _check_combination(self, late: Late) -> None:
        if self.topology.size != self.peer.size:
            raise ConfigError(
                f"the topology is for {self.topology.size} ranks, but this job has {self.peer.size}"
            )
        self.algorithm.check(self.topology, self.compressor)
        if late == "drop" and not self.algorithm.tolerates_loss:
            raise ConfigError(
                "late='drop' leaves out packets that this algorithm cannot do without; "
                "use late='raise', or algorithm='dpsgd'"
            )

    def _make_exchange(self, late: Late) -> Exchange:
        degree = self.topology.degree
        plain = compress.make("none")
        self._load()
        mixers = [self.algorithm.mixer(arena.vector, self.compressor, degree) for arena in self._arenas]
        mixers += [gossip.AverageMixer(arena.vector, plain, degree) for arena in self._buffer_arenas]
        return Exchange(
            self.peer.transport.stream(Stream.GOSSIP),
            self.topology,
            mixers,
            budget=self.algorithm.budget,
            late=late,
            epoch=self.peer.view.epoch,
            seed=self.peer.view.seed,
            overlap=self.algorithm.order == "cta",
        )

    def _link(self) -> None:
        """Share the wrapped optimiser's groups and state, so that schedulers change the real ones."""
        self.param_groups = self.optimizer.param_groups
        self.state = self.optimizer.state
        self.defaults = self.optimizer.defaults

    @property
    def _all_arenas(self) -> list[Arena]:
        return [*self._arenas, *self._buffer_arenas]

    @property
    def wait_s(self) -> float:
        """Seconds spent waiting for peers so far: what was not hidden behind computation."""
        return self._wait_s + (self._exchange.wait_s if self._exchange else 0.0)

    @property
    def buffer_bytes(self) -> int:
        """Bytes held beyond parameters, gradients and the wrapped optimiser's own state."""
        staging = sum(arena.staging_bytes for arena in self._all_arenas)
        gradients = self._averager.nbytes if self._averager else 0
        return staging + gradients + (self._exchange.buffer_bytes if self._exchange else 0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the wrapped optimiser does."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused after construction: all ranks lay out their buffers once.

        Raises:
            ConfigError: always, once constructed.
        """
        if hasattr(self, "_layout"):
            raise ConfigError(
                "parameter groups cannot be added to a DecentralizedOptimizer; "
                "add them to the torch optimizer first, then wrap it"
            )
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # one overload
        """One local update and one round of gossip, in the algorithm's order.

        Args:
            closure: re-evaluates the model and returns the loss, as torch optimisers take it.

        Returns:
            What the wrapped optimiser returned.

        Raises:
            NonFiniteError: a gradient holds NaN or infinity and nan_policy is "raise".
            ConfigError: a sparse gradient, or the set of trainable parameters has changed.
            PeerTimeout, PeerLost, ProtocolError: a neighbour failed; see ``late``.
            Stopped: the job was asked to stop.
        """
        self.peer.check()
        self._check_layout()
        if self._exchange is None:
            return self._step_allreduce(closure)
        if self.algorithm.order == "atc":
            loss = self._adapt(closure)
            self._load()
            self._exchange.run(self.rounds)
            self.rounds += 1
            self._store()
            return loss
        if not self._exchange.pending:
            self._begin()
        self._finish()
        loss = self._adapt(closure)
        self._begin()
        return loss

    def _adapt(self, closure: Callable[[], float] | None) -> float | None:
        """The wrapped optimiser's step, unless the gradients forbid it."""
        if closure is not None:
            return self.optimizer.step(closure)
        bad = first_nonfinite(self._parameters)
        if bad is not None and self.nan_policy == "skip":
            return None
        if bad is not None and self.nan_policy == "raise":
            name, count = bad
            raise NonFiniteError(
                f"the gradient of {name} holds {count} NaN or infinite values in round {self.rounds} on rank "
                f"{self.peer.rank}; lower the learning rate, clip gradients, or choose nan_policy='skip'"
            )
        return self.optimizer.step()

    def _begin(self) -> None:
        assert self._exchange is not None
        self._load()
        self._exchange.begin(self.rounds)
        self.rounds += 1

    def _finish(self) -> None:
        assert self._exchange is not None
        self._exchange.finish()
        self._store()

    def _load(self) -> None:
        for arena in self._all_arenas:
            arena.load()

    def _store(self) -> None:
        for arena in self._all_arenas:
            arena.store()
        torch.autograd.graph.increment_version([p for _, p in self._parameters])

    def _step_allreduce(self, closure: Callable[[], float] | None) -> float | None:
        if closure is not None:
            raise ConfigError("algorithm 'allreduce' averages gradients before the step and takes no closure")
        assert self._averager is not None
        started = self.peer.transport.now()
        self._averager.average()
        for arena in self._buffer_arenas:
            _mean(self.peer, arena)
        self._wait_s += self.peer.transport.now() - started
        self.rounds += 1
        return self._adapt(None)

    def _check_layout(self) -> None:
        """The buffers were laid out for these tensors: notice when they are not the same any more."""
        if _layout(self.optimizer) != self._layout:
            raise ConfigError(
                "parameters were frozen, unfrozen or added since this DecentralizedOptimizer was made; "
                "make a new one, on all ranks, after such a change"
            )
        for arena in self._all_arenas:
            if not arena.holds():
                raise ConfigError(
                    "a parameter's storage was replaced (by module.to(...), load_state_dict(assign=True) or "
                    ".data = ...); do that before making the DecentralizedOptimizer"
                )

    def consensus_distance(self) -> float:
        """Root mean square distance of the ranks' models to their mean; all ranks call it together.

        Returns:
            sqrt(sum_i ||x_i - mean(x)||^2 / size) over all averaged parameters.

        Cost: one ring all-reduce of the model; for evaluation, not for every step.
        """
        total = np.zeros(1)
        for arena in self._arenas:
            arena.load()
            mean = arena.vector.copy()
            ring_mean(self.peer.transport, mean)
            total += kernels.sqdist(arena.vector, mean)
        ring_mean(self.peer.transport, total)
        return float(total[0] ** 0.5)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the parameters and buffers are their exact mean over all ranks.

        All ranks enter together; on leaving, each has its own model again.
        """
        own = [arena.flat.clone() for arena in self._all_arenas]
        for arena in self._all_arenas:
            _mean(self.peer, arena)
        try:
            yield
        finally:
            for arena, saved in zip(self._all_arenas, own, strict=True):
                arena.flat.copy_(saved)

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimiser and of the algorithm, for this rank."""
        vectors: dict[str, torch.Tensor] = {}
        for i, mixer in enumerate(self._exchange.mixers if self._exchange else ()):
            vectors.update(
                {f"{i}.{name}": torch.from_numpy(part.copy()) for name, part in mixer.state().items()}
            )
        begun = self._exchange is not None and self._exchange.pending
        algorithm = {
            "name": repr(self.algorithm),
            "rounds": self.rounds - begun,
            "begun": begun,  # a round under way is begun again by load_state_dict, with the same bits
            "vectors": vectors,
        }
        return {"optimizer": self.optimizer.state_dict(), "gossip": algorithm}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict()``; load the model's parameters and buffers first.

        All ranks call it together: a round that was under way when the state was taken begins
        again, from the loaded model.

        Raises:
            ConfigError: the state is of another algorithm, model or of a plain optimiser.
        """
        if set(state_dict) != {"optimizer", "gossip"}:
            raise ConfigError(
                f"not a DecentralizedOptimizer state: keys {sorted(state_dict)}, not gossip and optimizer; "
                "load a plain optimiser's state into it before wrapping"
            )
        saved = state_dict["gossip"]
        if saved["name"] != repr(self.algorithm):
            raise ConfigError(
                f"the state is of algorithm {saved['name']}, this optimiser runs {self.algorithm!r}"
            )
        parts = {
            f"{i}.{name}": part
            for i, mixer in enumerate(self._exchange.mixers if self._exchange else ())
            for name, part in mixer.state().items()
        }
        shapes = {name: tuple(vector.shape) for name, vector in saved["vectors"].items()}
        if shapes != {name: part.shape for name, part in parts.items()}:
            raise ConfigError(f"the state's vectors {shapes} do not fit this model")
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self._link()
        for name, vector in saved["vectors"].items():
            parts[name][...] = vector.numpy()
        if self._exchange is not None and self._exchange.pending:
            self._exchange.finish(mix=False)
        self.rounds = saved["rounds"]
        if saved["begun"]:
            self._begin()

    def close(self) -> None:
        """Finish the round under way, so that nothing is left in flight; all ranks call it."""
        if self._exchange is not None and self._exchange.pending:
            self._finish()
            self._exchange.flush()


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _layout(optimizer: torch.optim.Optimizer) -> list[tuple[int, bool]]:
    return [(id(p), p.requires_grad) for group in optimizer.param_groups for p in group["params"]]


def _mean(peer: PeerLike, arena: Arena) -> None:
    """Replace an arena's numbers by their mean over all ranks; 16-bit ones are summed in float32."""
    if arena.dtype in (torch.float32, torch.float64):
        ring_mean(peer.transport, arena.flat.numpy())
    else:
        arena.load()
        ring_mean(peer.transport, arena.vector)
        arena.store()
