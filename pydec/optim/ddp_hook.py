"""``DistributedDataParallel`` with pydec's compressors, for those who keep all-reduce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

import pydec
from pydec import compress
from pydec.compress.base import Bytes, Compressor, Vector, restore
from pydec.compress.feedback import check_state
from pydec.compress.keys import draw_key
from pydec.compress.powersgd import PowerSGD
from pydec.errors import ConfigError, MismatchError, ProtocolError
from pydec.gossip.memory import ALIGNMENT, align, aligned_bytes, aligned_floats
from pydec.gossip.switch import refuse_auto
from pydec.optim.arena import check_tensor

# A message is a length and the payload behind it, at the next cache line. It has room for the longest
# payload, so that one collective a bucket will do: a second one, for the lengths, would have to start
# when the first ends, and that is in another order on every rank.
_PAYLOAD_AT = ALIGNMENT
_REFUSED = (1 << 64) - 1  # in place of the length: this rank could not encode its gradients

# Newer versions of PyTorch warn of the name that older ones have.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Future = torch.futures.Future[torch.Tensor]


@dataclass
class _Bucket:
    """Memory of one DDP bucket: allocated when DDP first uses it."""

    parameters: list[torch.Tensor]
    n: int
    message: Bytes
    gathered: Bytes
    residual: Vector | None
    start: Vector | None  # directions of powersgd
    staging: Vector | None = None  # for buckets that are no float32 vectors
    x: Vector = field(default_factory=lambda: np.empty(0, np.float32))
    length: int = 0

    def holds(self, parameters: list[torch.Tensor]) -> bool:
        """Whether the bucket is of these parameters in this order."""
        return len(parameters) == len(self.parameters) and all(
            a is b for a, b in zip(parameters, self.parameters, strict=True)
        )

    def pieces(self) -> Iterable[tuple[torch.Tensor, Vector]]:
        """Each parameter with its part of the residual."""
        if self.residual is None:
            return
        start = 0
        for parameter in self.parameters:
            yield parameter, self.residual[start : start + parameter.numel()]
            start += parameter.numel()


class DDPHook:
    """State of the communication hook that ``pydec.ddp_hook`` registers; one for each DDP module."""

    def __init__(
        self,
        ddp: DistributedDataParallel,
        compressor: Compressor,
        *,
        seed: int,
        feedback: bool,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self.compressor = compressor
        self.feedback = feedback
        self.seed = seed
        self.step = -1
        self.payload_bytes = 0
        self.refused = 0
        self.last_refusal = ""
        self._group = ddp.process_group
        self._rank, self._size = dist.get_rank(self._group), dist.get_world_size(self._group)
        self._names = {id(p): name for name, p in ddp.module.named_parameters()}
        self._numel = {name: p.numel() for name, p in ddp.module.named_parameters()}
        self._scaler = scaler
        self._scale = scaler.get_scale() if scaler is not None else 1.0
        self._buckets: dict[int, _Bucket] = {}
        self._carried: dict[str, Vector] = {}
        self._lost = False

    def residuals(self) -> dict[str, Vector]:
        """Copies of what error feedback has still to send, flat, by the parameter's name in ``ddp.module``.

        Between steps only.
        """
        self._settle()
        found = {name: piece.copy() for name, piece in self._carried.items()}
        for bucket in self._buckets.values():
            found.update((self._names[id(p)], piece.copy()) for p, piece in bucket.pieces())
        return found

    def state_dict(self) -> dict[str, Any]:
        """This rank's step, loss scale and residuals; other ranks have others."""
        residuals = {name: torch.from_numpy(piece) for name, piece in self.residuals().items()}
        return {"step": self.step, "scale": self._scale, "residuals": residuals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()`` of the same rank.

        DDP starts a new process with other buckets than it ended the last one with. Residuals follow their
        parameters, so nothing is lost; but what one message encodes together differs in the first step,
        and powersgd draws its directions again.

        Raises:
            ConfigError: the residuals are not those of this model or are damaged; nothing has changed then.
        """
        loaded = {name: check_state(name, vector) for name, vector in state["residuals"].items()}
        for name, vector in loaded.items():
            if self._numel.get(name) != vector.size:
                raise ConfigError(
                    f"the state has {vector.size} residuals for {name!r}, which has "
                    f"{self._numel.get(name, 0)} elements here; load the state of the same model"
                )
        self.step, self._scale = int(state["step"]), float(state["scale"])
        self._buckets.clear()
        self._carried = loaded

    def reduce(self, bucket: Any) -> Future:
        """The hook: sends what this rank's GradBucket holds and puts the mean over the ranks in its place."""
        if bucket.index() == 0:
            self._settle()
            self._follow_scale()
            self.step += 1
        buffer = bucket.buffer()
        if buffer.layout is not torch.strided:
            raise ConfigError(
                "DDP bucket with sparse gradients; build the layer (an nn.Embedding?) with sparse=False"
            )
        if self._size == 1:
            return done(buffer)
        mine = self._bucket(bucket.index(), bucket.parameters())
        mine.x = self._load(mine, buffer)
        self._encode(mine, bucket.index())
        into, message = torch.from_numpy(mine.gathered), torch.from_numpy(mine.message)
        work = _all_gather(into, message, group=self._group, async_op=True)
        reduced: Future = work.get_future().then(lambda gathered: self._finish(mine, buffer, gathered))
        return reduced

    def _encode(self, mine: _Bucket, index: int) -> None:
        compressor = self.compressor.keyed(draw_key(self.seed, self._rank, self.step, index))
        out = mine.message[_PAYLOAD_AT:]
        try:
            if mine.start is not None:
                assert isinstance(compressor, PowerSGD)
                mine.length = compressor.encode_warm_into(mine.x, mine.residual, mine.start, out)
            elif mine.residual is not None:
                mine.length = compressor.encode_feedback_into(mine.x, mine.residual, out)
            else:
                mine.length = compressor.encode_into(mine.x, out)
        except ValueError as error:
            # An exception here would leave the other ranks waiting. They learn it instead, and all ranks
            # get NaN, as from an all-reduce: GradScaler then skips the step on all of them.
            mine.length = _REFUSED
            self.refused += 1
            self.last_refusal = str(error)
        else:
            self.payload_bytes += mine.length
        mine.message[:8].view("<u8")[0] = mine.length

    def _finish(self, mine: _Bucket, buffer: torch.Tensor, gathered: Future) -> torch.Tensor:
        gathered.value()  # raises what the collective raised
        payloads = []
        for rank, message in enumerate(mine.gathered.reshape(self._size, -1)):
            length = int(message[:8].view("<u8")[0])
            if length == _REFUSED:
                self._lost = True
                if mine.length != _REFUSED:
                    self._take_back(mine)
                    if mine.residual is not None:
                        restore(mine.residual, mine.x)
                return buffer.fill_(torch.nan)
            if length > message.size - _PAYLOAD_AT:
                raise ProtocolError(
                    rank, f"sent a payload of {length} bytes where {message.size - _PAYLOAD_AT} are possible"
                )
            payloads.append(message[_PAYLOAD_AT : _PAYLOAD_AT + length])
        mine.x.fill(0.0)
        self.compressor.accumulate(payloads, [1.0 / self._size] * self._size, mine.x)
        if mine.staging is not None:
            buffer.copy_(torch.from_numpy(mine.staging).view_as(buffer))
        return buffer

    def _take_back(self, mine: _Bucket) -> None:
        """Nobody will apply what this rank sent: it waits again."""
        if mine.residual is not None:
            own = mine.message[_PAYLOAD_AT : _PAYLOAD_AT + mine.length]
            self.compressor.accumulate([own], [1.0], mine.residual)
        mine.length = _REFUSED

    def _settle(self) -> None:
        """A step with NaN in one bucket is a lost step: what went out in the others is taken back too."""
        if self._lost:
            for bucket in self._buckets.values():
                if bucket.length != _REFUSED:
                    self._take_back(bucket)
            self._lost = False

    def _load(self, mine: _Bucket, buffer: torch.Tensor) -> Vector:
        """The bucket as a float32 vector: itself if it is one, else converted."""
        if buffer.dtype is torch.float32 and buffer.is_contiguous():
            mine.staging = None
            return _vector(buffer.view(-1))
        if mine.staging is None:
            mine.staging = aligned_floats(mine.n)
        torch.from_numpy(mine.staging).view_as(buffer).copy_(buffer)
        return mine.staging

    def _bucket(self, index: int, parameters: list[torch.Tensor]) -> _Bucket:
        """The memory of a bucket; what waited for its parameters in other buckets moves here.

        After its first backward pass DDP sorts parameters into buckets again, in the order in which their
        gradients became ready.
        """
        found = self._buckets.get(index)
        if found is not None and found.holds(parameters):
            return found
        # Buckets below this one stay: they are as they were, and may be on their way at this moment.
        for later in [i for i in self._buckets if i >= index]:
            for parameter, piece in self._buckets.pop(later).pieces():
                self._carried[self._names[id(parameter)]] = piece.copy()
        n = sum(p.numel() for p in parameters)
        slot = align(_PAYLOAD_AT + self.compressor.max_bytes(n))
        made = _Bucket(
            parameters=parameters,
            n=n,
            message=aligned_bytes(slot),
            gathered=aligned_bytes(slot * self._size),
            residual=aligned_floats(n) if self.feedback else None,
            start=None,
        )
        if isinstance(self.compressor, PowerSGD):
            made.start = aligned_floats(self.compressor.factors(n) * self.compressor.shape(n)[1])
        for parameter, piece in made.pieces():
            waiting = self._carried.pop(self._names[id(parameter)], None)
            if waiting is not None:
                piece[:] = waiting
        self._buckets[index] = made
        return made

    def _follow_scale(self) -> None:
        """Residuals are in units of the loss scale."""
        if self._scaler is None:
            return
        scale = self._scaler.get_scale()
        if scale != self._scale:
            factor = np.float32(scale / self._scale)
            for residual in [b.residual for b in self._buckets.values()] + list(self._carried.values()):
                if residual is not None:
                    residual *= factor
            self._scale = scale


def ddp_hook(
    ddp: DistributedDataParallel,
    compressor: str | Compressor = "int8",
    *,
    seed: int = 0,
    feedback: bool | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> DDPHook:
    """Let a DDP module send its gradients compressed; all ranks call this together, once, before training.

    In place of the all-reduce of a bucket, each rank encodes its own gradients with error feedback, the
    ranks gather all messages, and each adds up ``sum_k decode(message_k) / size`` in rank order, in one
    pass: all ranks get the same bits. The collective runs during the rest of the backward pass.

    Works over any ``torch.distributed`` group for CPU tensors (gloo), with ``no_sync()``, autocast,
    ``torch.compile`` of the DDP module, gradient clipping and every optimiser. Gradients that are not
    float32 travel as float32 and are rounded once. In a group of one nothing travels and gradients stay as
    they are.

    If a rank's gradients cannot be encoded (NaN, infinity), all ranks get NaN in that bucket, as from an
    all-reduce, so GradScaler leaves out the step on all of them; ``refused`` and ``last_refusal`` of that
    rank's state tell why. Error feedback takes that step as not delivered: residuals of the bucket stay (and
    are 0 where this rank's gradients were not finite), those of other buckets keep the step's gradients.

    Args:
        ddp: the module, wrapped; not compiled yet.
        compressor: specification or object: how gradients travel. Random draws are keyed by (seed, rank,
            step, bucket).
        seed: of those keys; the same on all ranks.
        feedback: add what was not sent to the next step's gradients. None: unless the compressor loses
            nothing, or is unbiased with a variance of 1 or more, for which it does not converge.
        scaler: the GradScaler in use, so that residuals follow its scale.

    Returns:
        The hook's state: ``step``, ``payload_bytes`` (encoded by this rank so far), ``refused``,
        ``residuals()``, ``state_dict()``, ``load_state_dict()``.

    Raises:
        ConfigError: not a DDP module, a parameter or compressor that cannot work.
        MismatchError: ranks were given different arguments or run different versions.

    Cost: a rank receives (size - 1) payloads, an all-reduce 2 (size - 1) / size times 4 n bytes: payloads of
    b bytes pay off below 8 n / b ranks, which is 7.8 for int8, 100 for topk and 280 for topk-int8 of 1 %.
    Beyond that, average with few neighbours: ``ddp_gossip``. Memory: one residual, and size + 1 payloads of
    the longest length (for "threshold" twice the usual one, which is also what travels).

    Source of error feedback: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
    arXiv:1809.07599, algorithm 1, on each of the workers.
    """
    check_ddp(ddp)
    compressor = compress.make(compressor) if isinstance(compressor, str) else compressor
    refuse_auto("DDP", compressor)
    n = sum(p.numel() for p in ddp.module.parameters() if p.requires_grad)
    expands = compressor.variance(n) is not None and compressor.delta(n) <= 0.0
    if feedback and expands:
        raise ConfigError(
            f"{compressor!r} has variance {compressor.variance(n):g}, for which error feedback does not "
            "converge; use feedback=False or a compressor that is a contraction"
        )
    if feedback is None:
        feedback = not expands
    state = DDPHook(ddp, compressor, seed=seed, feedback=feedback and not compressor.lossless, scaler=scaler)
    facts = {
        "pydec version": pydec.__version__,
        "compressor": repr(compressor),
        "seed": str(seed),
        "feedback": str(feedback),
        "scaler": str(scaler is not None),
    }
    _agree(facts, ddp.process_group)
    # DDP compares annotations with classes, and ours are strings: a lambda has none.
    ddp.register_comm_hook(state, lambda state, bucket: state.reduce(bucket))
    return state


def check_ddp(ddp: object) -> None:
    """Raise ConfigError unless it is a DDP module whose trainable parameters pydec can average."""
    if not isinstance(ddp, DistributedDataParallel):
        raise ConfigError(
            f"expected a DistributedDataParallel module, got {type(ddp).__name__}; wrap the model in DDP, "
            "register the hook, then torch.compile it if you do"
        )
    for name, parameter in ddp.module.named_parameters():
        if parameter.requires_grad:
            check_tensor(parameter, name)


def _agree(facts: Mapping[str, str], group: dist.ProcessGroup) -> None:
    """Raise MismatchError, on all ranks, unless all have the same facts."""
    pages: list[dict[str, str]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(pages, dict(facts), group=group)
    for rank, page in enumerate(pages):
        for name, value in pages[0].items():
            if page[name] != value:
                raise MismatchError(
                    f"{name} is {value} on rank 0 but {page[name]} on rank {rank}; "
                    "give ddp_hook the same arguments on all ranks"
                )


def _vector(flat: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = flat.detach().numpy()
    return array


def done(buffer: torch.Tensor) -> Future:
    """A future that holds the buffer already."""
    future: Future = torch.futures.Future()
    future.set_result(buffer)
    return future
