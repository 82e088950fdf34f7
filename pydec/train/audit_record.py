"""What an audit needs of a rank's steps: the state before each, and what was heard and signed in it.

A rank keeps this of every step since the last report, and commits to it before anybody knows which step of
whom will be run again (``audit.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.torch
import torch
from blake3 import blake3
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from pydec.codec import wire
from pydec.crypto.hashing import sha256
from pydec.errors import FrameError
from pydec.gossip.witness import Heard, Said, Slot
from pydec.optim import DecentralizedOptimizer
from pydec.train.checkpoint_files import OWN
from pydec.train.checkpoint_state import flatten, model_tensors, unflatten

_ROOT = b"pydec.audit.steps.v1"
_STATE, _HEARD = "state:", "heard:"


@dataclass(frozen=True)
class State:
    """Everything that decides a step, but for its data and its random numbers, which follow from the options.

    Args:
        tensors: of model and optimiser, by name.
        tree: the rest, as JSON; see ``checkpoint_state``.
    """

    tensors: Mapping[str, Tensor]
    tree: Any

    @classmethod
    def of(cls, model: nn.Module, optimizer: DecentralizedOptimizer) -> State:
        """A copy of the present one.

        Raises:
            ConfigError: the state holds something that is no tensor or number.
        """
        tensors = model_tensors(model)
        tree = flatten(optimizer.state_dict(copy=False), OWN + "optimizer", tensors)
        return cls({name: tensor.detach().clone() for name, tensor in tensors.items()}, tree)

    def load(self, model: nn.Module, optimizer: DecentralizedOptimizer) -> None:
        """Take it over.

        Raises:
            RuntimeError, KeyError, ValueError, TypeError, ConfigError: it does not fit.
        """
        model.load_state_dict({n: t.clone() for n, t in self.tensors.items() if not n.startswith(OWN)})
        clones = {name: tensor.clone() for name, tensor in self.tensors.items()}
        optimizer.load_state_dict(unflatten(self.tree, clones))

    @cached_property
    def digest(self) -> bytes:
        """BLAKE3 of all of it, 32 bytes."""
        found = blake3(json.dumps(_sorted(self.tree), separators=(",", ":")).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            found.update(memoryview(_bytes_of(tensor)))
        return found.digest()


@dataclass
class Step:
    """One step of a rank.

    Args:
        number: steps done before it.
        state: before it.
        heard: packets that were taken in it.
        sent: what was signed in it, one claim for each packet.
    """

    number: int
    state: State
    heard: list[Heard] = field(default_factory=list)
    sent: dict[Slot, Said] = field(default_factory=dict)


class Record:
    """A rank's steps since the last report; ``gossip.witness.Recorder``."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.last: Step | None = None
        """The step that has not begun: its state is how the one before has ended."""

    @property
    def nbytes(self) -> int:
        """Bytes of states and packets that are kept."""
        steps = [*self.steps, self.last] if self.last else self.steps
        return sum(
            sum(t.nbytes for t in step.state.tensors.values()) + sum(len(h.message) for h in step.heard)
            for step in steps
        )

    def between(self, number: int, state: State) -> None:
        """``number`` steps are done."""
        if self.last is not None:
            self.steps.append(self.last)
        self.last = Step(number, state)

    def heard(self, heard: Heard) -> None:
        """A packet was taken."""
        if self.last is not None:
            self.last.heard.append(heard)

    def sent(self, slot: Slot, said: Said) -> None:
        """A packet was signed. Who signs several in one's place has the first on record."""
        if self.last is not None:
            self.last.sent.setdefault(slot, said)

    def leaves(self) -> list[bytes]:
        """Digests of the states before every step, and after the last."""
        assert self.last is not None
        return [step.state.digest for step in (*self.steps, self.last)]

    def begin(self) -> None:
        """Forget the steps that are over."""
        self.steps.clear()


def root_of(first: int, leaves: Sequence[bytes]) -> bytes:
    """What a rank commits to: the number of its first step, and all states; 32 bytes."""
    return sha256(_ROOT, wire.u64(first), *leaves)


@dataclass(frozen=True)
class Account:
    """What the audited rank hands over.

    Args:
        first: number of the first step of its window.
        leaves: see ``Record.leaves``.
        step: that is audited.
    """

    first: int
    leaves: tuple[bytes, ...]
    step: Step

    def encode(self) -> bytes:
        """As one safetensors file: states as they are, packets as bytes, the rest as JSON."""
        tensors = {_STATE + name: tensor.contiguous() for name, tensor in self.step.state.tensors.items()}
        heard = []
        for at, packet in enumerate(self.step.heard):
            tensors[f"{_HEARD}{at}"] = torch.from_numpy(np.frombuffer(packet.message, np.uint8).copy())
            heard.append([packet.peer, *packet.slot, packet.signature.hex()])
        sent = [[*slot, said.digest.hex(), said.signature.hex()] for slot, said in self.step.sent.items()]
        told = {
            "first": self.first,
            "leaves": [leaf.hex() for leaf in self.leaves],
            "number": self.step.number,
            "tree": self.step.state.tree,
            "heard": heard,
            "sent": sent,
        }
        return safetensors.torch.save(tensors, {"account": json.dumps(told)})

    @classmethod
    def decode(cls, data: bytes) -> Account:
        """What ``encode`` wrote.

        Raises:
            FrameError: it is something else.
        """
        try:
            tensors = safetensors.torch.load(data)
            length = int.from_bytes(data[:8], "little")
            told = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["account"])
            heard = [
                Heard(
                    int(peer),
                    Slot(int(epoch), int(round), int(number)),
                    tensors[f"{_HEARD}{at}"].numpy().tobytes(),
                    bytes.fromhex(signature),
                )
                for at, (peer, epoch, round, number, signature) in enumerate(told["heard"])
            ]
            sent = {
                Slot(int(epoch), int(round), int(number)): Said(bytes.fromhex(digest), bytes.fromhex(signed))
                for epoch, round, number, digest, signed in told["sent"]
            }
            states = {n.removeprefix(_STATE): t for n, t in tensors.items() if n.startswith(_STATE)}
            step = Step(int(told["number"]), State(states, told["tree"]), heard, sent)
            return cls(int(told["first"]), tuple(map(bytes.fromhex, told["leaves"])), step)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise FrameError(f"no account of a step: {type(error).__name__}: {error}") from None


def _sorted(tree: Any) -> Any:
    """A tree with its dictionaries in the order of their keys: an optimiser may fill one in any."""
    if isinstance(tree, list):
        return [_sorted(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    pairs = {name: _sorted(value) for name, value in tree.items()}
    if "dict" in pairs:
        pairs["dict"] = sorted(pairs["dict"], key=json.dumps)
    return pairs


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
