"""Who votes in an epoch, and with how much stake. Integers only: all nodes must agree on every quorum."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydec.codec.wire import Reader, blob, checked, u16, u64
from pydec.crypto.signing import KEY_BYTES

MAX_VALIDATORS = 1024
MAX_ADDRESS_BYTES = 255
STAKE_LIMIT = 1 << 62  # the sum of stakes is below, so that 3 * w fits 64 bits anywhere
MAX_TABLE_BYTES = 10 + MAX_VALIDATORS * (2 * KEY_BYTES + 12 + MAX_ADDRESS_BYTES)


@dataclass(frozen=True, slots=True)
class Validator:
    """One member that votes.

    Args:
        node_id: its identity, 32 bytes (an Ed25519 public key).
        key: the Ed25519 public key that signs its votes, 32 bytes; may be ``node_id``.
        stake: its weight, 0 <= stake < 2^62; with 0 it is listed and has no vote.
        address: where it is reached, at most 255 bytes of UTF-8.
    """

    node_id: bytes
    key: bytes
    stake: int
    address: str = ""

    def __post_init__(self) -> None:
        if len(self.node_id) != KEY_BYTES or len(self.key) != KEY_BYTES:
            raise ValueError(
                f"an id and a key have {KEY_BYTES} bytes, not {len(self.node_id)} and {len(self.key)}"
            )
        if type(self.stake) is not int or not 0 <= self.stake < STAKE_LIMIT:
            raise ValueError(f"a stake is an integer from 0 to 2^62 - 1, got {self.stake!r}")
        if len(self.address.encode()) > MAX_ADDRESS_BYTES:
            raise ValueError(
                f"an address has at most {MAX_ADDRESS_BYTES} bytes, got {self.address[:40]!r}..."
            )


@dataclass(frozen=True)
class ValidatorTable:
    """The validators of one epoch; a validator's index is its position.

    Args:
        epoch: counts changes of the table, from 0.
        validators: at least one, sorted by node id, ids and keys unique, 0 < sum of stakes < 2^62.

    Attributes:
        total: sum of stakes, W.
    """

    epoch: int
    validators: tuple[Validator, ...]
    total: int = field(init=False, repr=False, compare=False)
    _indices: dict[bytes, int] = field(init=False, repr=False, compare=False)
    _bytes: bytes = field(init=False, repr=False, compare=False)
    _digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.epoch < 1 << 64:
            raise ValueError(f"an epoch is below 2^64, got {self.epoch}")
        if not 1 <= len(self.validators) <= MAX_VALIDATORS:
            raise ValueError(f"a table has 1 to {MAX_VALIDATORS} validators, got {len(self.validators)}")
        ids = [validator.node_id for validator in self.validators]
        if any(a >= b for a, b in itertools.pairwise(ids)):
            raise ValueError("the validators of a table are sorted by node id, each once")
        if len({validator.key for validator in self.validators}) != len(ids):
            raise ValueError("two validators of a table have one voting key")
        total = sum(validator.stake for validator in self.validators)
        if not 0 < total < STAKE_LIMIT:
            raise ValueError(f"the sum of stakes is from 1 to 2^62 - 1, got {total}")
        object.__setattr__(self, "total", total)
        object.__setattr__(self, "_indices", {node_id: i for i, node_id in enumerate(ids)})
        parts = [u64(self.epoch), u16(len(ids))]
        parts += [v.node_id + v.key + u64(v.stake) + blob(v.address.encode()) for v in self.validators]
        object.__setattr__(self, "_bytes", b"".join(parts))
        object.__setattr__(self, "_digest", hashlib.sha256(b"pydec.table.v1" + self._bytes).digest())

    @classmethod
    def of(cls, epoch: int, validators: Iterable[Validator]) -> ValidatorTable:
        """The table of these validators, in any order."""
        return cls(epoch, tuple(sorted(validators, key=lambda validator: validator.node_id)))

    def __hash__(self) -> int:
        return hash(self._digest)

    def __len__(self) -> int:
        return len(self.validators)

    def __getitem__(self, index: int) -> Validator:
        return self.validators[index]

    def quorum(self, weight: int) -> bool:
        """More than two thirds of the stake: any two quorums share an honest validator."""
        return 3 * weight > 2 * self.total

    def blocking(self, weight: int) -> bool:
        """More than a third of the stake: at least one of them is honest, and no quorum is without them."""
        return 3 * weight > self.total

    def index(self, node_id: bytes) -> int | None:
        """Position of a validator, None if it is not in the table."""
        return self._indices.get(node_id)

    def weight(self, indices: Iterable[int]) -> int:
        """Sum of the stakes at these positions."""
        return sum(self.validators[index].stake for index in indices)

    def digest(self) -> bytes:
        """SHA-256 of the table's bytes behind a tag: ``next_validators_hash`` of a header."""
        return self._digest

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self._bytes

    @classmethod
    def decode(cls, data: bytes) -> ValidatorTable:
        """The table of these bytes.

        Raises:
            FrameError: they are no table.
        """
        reader = Reader(data, "a validator table")
        epoch, count = reader.u64(), reader.u16()
        validators = []
        for _ in range(count):
            node_id, key, stake = reader.take(KEY_BYTES), reader.take(KEY_BYTES), reader.u64()
            address = checked("an address", str, reader.blob(MAX_ADDRESS_BYTES), "utf-8")
            validators.append(checked("a validator table", Validator, node_id, key, stake, address))
        reader.end()
        return checked("a validator table", cls, epoch, tuple(validators))
