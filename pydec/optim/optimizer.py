"""``DecentralizedOptimizer``: any torch optimiser, with gossip in place of all-reduce."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from pydec import compress, gossip
from pydec.aggregate import Counts
from pydec.comm.collect import exact_mean, ring_mean
from pydec.comm.living import agree_who_lives
from pydec.compress.base import Compressor
from pydec.errors import ConfigError, NonFiniteError, PeerLost
from pydec.gossip.base import Algorithm
from pydec.gossip.control import Control, controls
from pydec.gossip.exchange import Late, Lost
from pydec.gossip.place import Place
from pydec.optim.arena import Arena, make_arenas
from pydec.optim.facts import (
    PeerLike,
    facts,
    find_nodes,
    float_buffers,
    make_topology,
    trainable,
)
from pydec.optim.gradients import GradientAverager, look_at
from pydec.optim.layout import Layout
from pydec.optim.local import describe, warn_if_biased
from pydec.optim.merge import average, averaged, distance, spread
from pydec.optim.places import GossipDevice, choose
from pydec.optim.plan import Plan, check_choice
from pydec.optim.rounds import Rounds
from pydec.optim.views import Views
from pydec.topology.base import Topology
from pydec.trace import span, traced

Buffers = Literal["average", "local"]
NanPolicy = Literal["raise", "skip", "continue"]
Init = Literal["broadcast", "keep"]


class DecentralizedOptimizer(torch.optim.Optimizer):
    """Wraps a torch optimiser so that ``step`` also averages the model with a few neighbours.

    Parameter groups, state, learning-rate schedulers, gradient clipping and ``zero_grad`` work as
    with the wrapped optimiser. All ranks construct it together and call ``step`` equally often; of an
    asynchronous algorithm ("adsgd") each as often as it can, and ``close`` or ``merge`` together at the end.

    Args:
        optimizer: any ``torch.optim.Optimizer``; its dense, real parameters with ``requires_grad`` are
            averaged, frozen ones are left alone.
        peer: what ``pydec.init()`` returned.
        topology: specification or object: who averages with whom, per round.
        compressor: specification or object: how models travel.
        algorithm: specification or object: "dpsgd", "momentum-tracking", ..., with options; ``pydec
            list algorithms`` names them.
        local_steps: local updates between rounds of gossip.
        mixing: specification or object: how many rounds follow, "fixed:rounds=1", or "adaptive" for
            more rounds early and when the learning rate falls.
        estimate: whether to keep up ``consensus_estimate``; costs one more pass over the models.
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
        lost: what to do when a neighbour is dead and the MPI lets the others live: "raise" PeerLost, or
            "drop" it for good; None drops it wherever the algorithm can go on. See ``heal``.
        iid: whether all ranks' data are of one distribution; silences HeterogeneityWarning.
        gossip_device: where models on a GPU are averaged, with the same result: "cuda" there, so that only
            packets leave it, "cpu" in host memory, or "auto"; ``pydec.optim.places`` says what can be. The
            attribute of that name has the choice and its reason.
        background: whether a thread moves the packets of order="cta" while gradients are computed, where
            the MPI allows it; large ones wait for the next ``step`` otherwise. Asynchronous algorithms
            have it in any case.

    Raises:
        ConfigError: a name, option or combination that cannot work, or a parameter that cannot be
            averaged.
        MismatchError: ranks disagree on the model, the configuration or the version.

    Memory: two model-sized buffers for dpsgd, three for choco, up to six for others, whatever the number
    of neighbours (``buffer_bytes`` has the number); a steady-state step allocates none. Asynchronous
    algorithms keep a packet of every neighbour's model and send from one or two of their own.
    """

    _step_supports_amp_scaling = True  # GradScaler then calls step even where it found an overflow

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        peer: PeerLike,
        *,
        topology: str | Topology = "one-peer-exponential",
        compressor: str | Compressor = "none",
        algorithm: str | Algorithm = "dpsgd",
        local_steps: int = 1,
        mixing: str | Control = "fixed",
        estimate: bool = False,
        model: torch.nn.Module | None = None,
        buffers: Buffers = "average",
        nan_policy: NanPolicy = "raise",
        init: Init = "broadcast",
        late: Late = "raise",
        lost: Lost | None = None,
        iid: bool = False,
        gossip_device: GossipDevice | Place = "auto",
        background: bool = False,
    ) -> None:
        choices = ("buffers", buffers, Buffers), ("nan_policy", nan_policy, NanPolicy), ("init", init, Init)
        for choice in (*choices, ("late", late, Late), ("lost", lost or "drop", Lost)):
            check_choice(*choice)
        super().__init__([{"params": []}], {})
        self.optimizer, self.peer, self.nan_policy = optimizer, peer, nan_policy
        self._link()
        spec, nodes = (topology, find_nodes(topology, peer)) if isinstance(topology, str) else (None, None)
        if isinstance(topology, str):
            topology = make_topology(topology, peer, nodes)
        self.topology = topology
        self.compressor = compress.make(compressor) if isinstance(compressor, str) else compressor
        self.algorithm = gossip.make(algorithm) if isinstance(algorithm, str) else algorithm
        control = controls.make(mixing) if isinstance(mixing, str) else mixing
        if self.topology.size != self.peer.size:
            raise ConfigError(
                f"the topology is for {self.topology.size} ranks, this job has {self.peer.size}; name one"
            )
        parts = self.topology, self.compressor, self.algorithm
        plan = Plan(*parts, local_steps, control, late, estimate, background, lost)
        plan.check()
        self.views = Views(peer.rank, plan, spec, nodes)
        """Changes of who gossips."""
        local = describe(optimizer)
        self.algorithm.check_local(local)
        self.algorithm.check_start(init)
        warn_if_biased(self.algorithm, local, peer.size, iid=iid)

        self._parameters = trainable(optimizer, model)
        if not self._parameters:
            raise ConfigError(
                "the optimizer has no parameter with requires_grad=True; there is nothing to train or average"
            )
        self._layout = Layout(optimizer)
        extra = float_buffers(model) if buffers == "average" else []
        place, self.gossip_device = choose(gossip_device, plan, [*self._parameters, *extra])
        self._arenas, self._buffer_arenas = make_arenas(self._parameters, place), make_arenas(extra, place)
        policies = {"buffers": buffers, "late": late, "lost": str(lost), "init": init}
        policies |= {"local steps": str(local_steps), "mixing": repr(control), "estimate": str(estimate)}
        for page in facts(self.topology, self.compressor, self.algorithm, policies, self._all_arenas):
            peer.agree(page)
        if init == "broadcast":
            spread(peer.transport, self._all_arenas)
        self._plan, self._living, self._wait_s = plan, tuple(range(peer.size)), 0.0
        self.honest: bool | None = None
        """Whether this rank counts in ``averaged`` and the like; None on all ranks: all do."""
        self._averager: GradientAverager | None = None
        self._rounds: Rounds | None = None
        if self.algorithm.averages == "gradients":
            self._averager = GradientAverager(peer.transport, self._parameters)
        else:
            groups = optimizer.param_groups
            self._rounds = Rounds(peer, plan, self._arenas, self._buffer_arenas, groups, self.views)

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
        return self._wait_s + (self._rounds.wait_s if self._rounds else 0.0)

    @property
    def rounds(self) -> int:
        """Rounds of gossip begun so far."""
        return self._rounds.rounds if self._rounds else 0

    @property
    def compressing(self) -> bool:
        """Whether packets are compressed now; with compressor="auto", what its last trial has shown."""
        return self._rounds.compressing if self._rounds else False

    @property
    def buffer_bytes(self) -> int:
        """Bytes held beyond parameters, gradients and the wrapped optimiser's own state."""
        staging = sum(arena.staging_bytes for arena in self._all_arenas)
        gradients = self._averager.nbytes if self._averager else 0
        return staging + gradients + (self._rounds.buffer_bytes if self._rounds else 0)

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

    @traced("step")
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # one overload
        """One local update and, after every ``local_steps`` of them, the algorithm's gossip.

        Under ``torch.amp.GradScaler`` a step with an overflow leaves out this rank's local update, and
        the rank gossips on.

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
        self._layout.check(self.optimizer, self._all_arenas)
        if closure is not None and (self._rounds is None or self.algorithm.needs_gradient):
            raise ConfigError(
                f"{type(self.algorithm).__name__} uses the gradients before the local step and takes no "
                "closure; call loss.backward() and then step()"
            )
        if self._rounds is None:
            return self._step_allreduce()
        usable, error = (True, None) if closure is not None else self._look_at_gradients()
        try:
            self._rounds.receive(usable)
            if error is not None:
                raise error
            loss = self._rounds.local(usable, lambda: self.optimizer.step(closure))
            self._rounds.send()
        except PeerLost as lost:
            raise self._plan.explained(lost) from lost
        return loss

    def heal(self) -> tuple[int, ...]:
        """Agree on who lives; if ranks have died, the survivors go on together from this step.

        All living ranks call it at the same step, now and then. Rounds leave out dead neighbours by
        themselves. Sums over all ranks (of exact diffusion, the tracking algorithms, CHOCO's estimates) miss
        the share of the dead: that recursion begins again here. Nodes whose leader died get another.

        Returns:
            The ranks that live, the same on all of them.

        Cost: two small messages between every two ranks, if ranks can outlive a death at all.
        """
        before, self._living = self._living, agree_who_lives(self.peer.transport)
        if self._living != before and self._rounds is not None:
            self._rounds.restart(self._living)
        return self._living

    def count(self, samples: float) -> None:
        """Say on how many samples or tokens each coming step is taken; quorum-diloco weights ranks by it."""
        if self._rounds is not None:
            self._rounds.count(samples)

    def judge(self, loss: Callable[[], float]) -> None:
        """Say how to find the model's loss on the coming step's batch, for rules that ask (ubar)."""
        if self._rounds is not None:
            self._rounds.judge(loss)

    @property
    def left_out(self) -> Counts:
        """What robust rules have left out so far, on this rank."""
        return self._rounds.counts() if self._rounds else Counts()

    def _look_at_gradients(self) -> tuple[bool, NonFiniteError | None]:
        """Whether the gradients may be used; and what to raise if they hold NaN and that is the policy."""
        amp = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        where = f"in round {self.rounds} on rank {self.peer.rank}"
        return look_at(self._parameters, self.nan_policy, *amp, where)

    def _step_allreduce(self) -> float | None:
        assert self._averager is not None
        started = self.peer.transport.now()
        with span("all-reduce"):
            self._averager.average()
            for arena in self._buffer_arenas:
                average(self.peer.transport, arena, ring_mean)
        self._wait_s += self.peer.transport.now() - started
        usable, error = self._look_at_gradients()
        if error is not None:
            raise error
        return self.optimizer.step() if usable else None

    def consensus_distance(self) -> float:
        """Root mean square distance of the ranks' models to their mean; all living ranks call it together.

        Returns:
            sqrt(sum_i ||x_i - mean(x)||^2 / size) over all averaged parameters and living ranks.

        Cost: one ring all-reduce of the model; for evaluation, not for every step.
        """
        return distance(self.peer.transport, self._arenas, self.honest)

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the parameters and buffers are their exact mean over all living ranks.

        All of them enter together; on leaving, each has its own model again.
        """
        return averaged(self.peer.transport, self._all_arenas, self.honest)

    @property
    def consensus_estimate(self) -> float:
        """The consensus distance as estimated from the last rounds, without any communication of its own.

        Nearly the same on all ranks; see ``pydec.gossip.consensus.Estimator`` for what it bounds.

        Raises:
            ConfigError: neither ``estimate=True`` nor adaptive mixing was asked for.
        """
        estimator = self._rounds.estimator if self._rounds else None
        if estimator is None:
            raise ConfigError("nothing was estimated; use estimate=True, or consensus_distance()")
        return estimator.distance

    def merge(self) -> None:
        """Make all ranks' models one: their exact mean, by gossip that is exact in finite time.

        For the end of a training run, and whenever models are to be the same; no all-reduce. Finishes the
        round under way first. All living ranks call it together. Ranks may differ in the last bits.

        Cost: ceil(log2(size)) rounds, uncompressed, with one neighbour each.
        """
        started = self.peer.transport.now()
        if self._rounds is not None:
            self._rounds.close()
        for arena in self._all_arenas:
            average(self.peer.transport, arena, exact_mean, self.honest)
        if self._rounds is not None:
            self._rounds.rebase()
        self._wait_s += self.peer.transport.now() - started

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """State of the wrapped optimiser and of the algorithm, for this rank.

        Args:
            copy: False gives the algorithm's vectors themselves, as it does the wrapped optimiser's in any
                case: for who copies them before the next step.
        """
        state = (
            self._rounds.state(copy=copy) if self._rounds else {"name": repr(self.algorithm), "vectors": {}}
        )
        return {"optimizer": self.optimizer.state_dict(), "gossip": state}

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
                f"the state is of algorithm {saved['name']}, this optimiser runs {self.algorithm!r}; use that"
            )
        if self._rounds is not None:
            self._rounds.check_state(saved)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self._link()
        if self._rounds is not None:
            self._rounds.load_state(saved, self.optimizer.param_groups)

    def close(self) -> None:
        """Finish the round under way, so that nothing is left in flight; all ranks call it."""
        if self._rounds is not None:
            self._rounds.close()
