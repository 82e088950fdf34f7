"""Following a chain by its changes of members alone, from a genesis or a pinned hash.

Every block that changes the table is certified by the table before it and names the digest of the next, so a
newcomer verifies one certificate for each epoch, not one for each block, and then checks a snapshot of the
state against the head's ``state_root``.

Who left with its stake can still sign another past (long-range fork; Deirmentzoglou et al., "A Survey on
Long-Range Attacks for Proof of Stake Protocols", IEEE Access 2019). Three things stand against it: a client
never goes back behind a block that it accepted; a pinned hash, from the launcher or from more than a third of
the current stake, must be on the way; and run keys are erased when their epochs are over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydec.codec import wire
from pydec.consensus.application import LedgerState
from pydec.consensus.block import Header
from pydec.consensus.certificate import MAX_CERTIFICATE_BYTES, CertificateError, QuorumCertificate, Verifier
from pydec.consensus.signed import Kind
from pydec.consensus.state import snapshot
from pydec.consensus.state.chain import ChainState
from pydec.consensus.validators import MAX_TABLE_BYTES, ValidatorTable
from pydec.errors import FrameError, LedgerError


@dataclass(frozen=True)
class EpochStep:
    """A block that changed the table.

    Args:
        header: of the block.
        commit: its certificate, by the table before.
        table: the next one, whose digest the header names.
    """

    header: Header
    commit: QuorumCertificate
    table: ValidatorTable


MOST_HEADER_BYTES = MAX_CERTIFICATE_BYTES + 512
MOST_STEP_BYTES = MOST_HEADER_BYTES + MAX_CERTIFICATE_BYTES + MAX_TABLE_BYTES + 12


def encode_step(step: EpochStep) -> bytes:
    """Canonical bytes of a step."""
    parts = (step.header.encode(), step.commit.encode(), step.table.encode())
    return b"".join(map(wire.blob, parts))


def decode_step(data: bytes) -> EpochStep:
    """A step from its bytes, not verified.

    Raises:
        FrameError: they are none.
    """
    reader = wire.Reader(data, "an epoch step")
    header, commit = reader.blob(MOST_HEADER_BYTES), reader.blob(MAX_CERTIFICATE_BYTES)
    table = reader.blob(MAX_TABLE_BYTES)
    reader.end()
    return EpochStep(Header.decode(header), QuorumCertificate.decode(commit), ValidatorTable.decode(table))


class LightClient:
    """What a newcomer knows of a chain: a block that it accepted, and the table that decides after it.

    Args:
        chain_id: of the chain.
        table: of the genesis.
        pins: block hashes by height that the chain must have, from the operator or from peers with more than
            a third of the stake; those blocks must be shown, by ``head_at`` if they change no table.
        verifier: of signatures.

    Attributes:
        height, head: of the last accepted block.
        table: decides the blocks after it.
        header: of the last accepted block, None at the genesis.
    """

    def __init__(
        self,
        chain_id: bytes,
        table: ValidatorTable,
        pins: dict[int, bytes] | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        self.chain_id, self.table = chain_id, table
        self.height, self.head = 0, chain_id
        self.header: Header | None = None
        self._decided_by = table
        self._pins = dict(pins or {})
        self._verifier = Verifier() if verifier is None else verifier  # an empty one is false

    @classmethod
    def at(
        cls, header: Header, table: ValidatorTable, pinned: bytes, verifier: Verifier | None = None
    ) -> LightClient:
        """Start at a block that is trusted by its hash alone, without its past.

        Raises:
            LedgerError: the header has another hash, or names another table.
        """
        if header.hash() != pinned:
            raise LedgerError(f"the pinned block is {pinned.hex()[:16]}, got {header.hash().hex()[:16]}")
        if table.digest() != header.next_validators_hash:
            raise LedgerError(
                f"the pinned block at height {header.height} names another table than the one given"
            )
        client = cls(header.chain_id, table, verifier=verifier)
        client.height, client.head, client.header = header.height, pinned, header
        return client

    @classmethod
    def after(
        cls,
        state: LedgerState,
        head: bytes,
        chain_id: bytes,
        pins: dict[int, bytes] | None = None,
        verifier: Verifier | None = None,
    ) -> LightClient:
        """Start at a block that this node has the state of; pins before it are not asked for any more.

        Args:
            state: after the block.
            head: its hash; the chain id at height 0.
            chain_id, pins, verifier: see the class.
        """
        client = cls(chain_id, state.table, pins, verifier)
        client.height, client.head = state.height, head
        return client

    @property
    def next_pin(self) -> int | None:
        """The next height whose block must be shown, None if there is none."""
        return min((pin for pin in self._pins if pin > self.height), default=None)

    def follow(self, steps: Iterable[EpochStep]) -> None:
        """Accept a chain of epoch changes, each if it follows from the one before.

        Raises:
            LedgerError: a step does not; those before it are kept.
        """
        for step in steps:
            header, table = step.header, step.table
            self._check(header, step.commit)
            if table.digest() != header.next_validators_hash or table.epoch != header.epoch + 1:
                raise LedgerError(f"height {header.height}: the table is not the one that the block names")
            self._accept(header, table)

    def head_at(self, header: Header, commit: QuorumCertificate) -> None:
        """Accept a newer block that changes no table.

        Raises:
            LedgerError: the present table did not decide it, or it changes the table.
        """
        self._check(header, commit)
        if header.next_validators_hash != self.table.digest():
            raise LedgerError(
                f"height {header.height}: the block changes the validators; follow its epoch step"
            )
        self._accept(header, self.table)

    def certify(self, header: Header, commit: QuorumCertificate) -> None:
        """Accept a newer block that changes no table, or check another certificate of the accepted head.

        Raises:
            LedgerError: the certificate is not by the table that decided the block; or see ``head_at``.
        """
        if self.header is None or header.hash() != self.head:
            self.head_at(header, commit)
        else:
            self._certified(header, commit, self._decided_by)

    def state(self, data: bytes) -> ChainState:
        """The state after the accepted head, from a snapshot that anybody may have sent.

        Raises:
            LedgerError: it is not that state.
        """
        if self.header is None:
            raise LedgerError("no block was accepted whose state a snapshot could be")
        try:
            found = snapshot.decode(data, self.chain_id, self.header.state_root)
        except FrameError as error:
            raise LedgerError(f"height {self.height}: {error}") from None
        if found.height != self.height or found.table != self.table:
            raise LedgerError(f"height {self.height}: the snapshot is of another height or table")
        return found

    def _check(self, header: Header, commit: QuorumCertificate) -> None:
        height = header.height
        if header.chain_id != self.chain_id:
            raise LedgerError(
                f"height {height}: of chain {header.chain_id.hex()[:16]}, not of {self.chain_id.hex()[:16]}"
            )
        if height <= self.height:
            raise LedgerError(
                f"height {height}: not above {self.height}, where this node accepted {self.head.hex()[:16]}; "
                "a decided block is never taken back"
            )
        if header.epoch != self.table.epoch:
            raise LedgerError(
                f"height {height}: of epoch {header.epoch}, but epoch {self.table.epoch} decides next"
            )
        if (pin := self.next_pin) is not None and pin < height:
            raise LedgerError(
                f"height {height}: the block of the pinned height {pin} must be shown before it"
            )
        if self._pins.get(height, header.hash()) != header.hash():
            raise LedgerError(
                f"height {height}: block {header.hash().hex()[:16]} where {self._pins[height].hex()[:16]} is "
                "pinned: a fork of the chain, perhaps by keys of the past"
            )
        self._certified(header, commit, self.table)

    def _certified(self, header: Header, commit: QuorumCertificate, table: ValidatorTable) -> None:
        height = header.height
        try:
            commit.verify(self.chain_id, table, height, Kind.COMMIT, self._verifier)
        except CertificateError as error:
            raise LedgerError(f"height {height}: {error}") from None
        if commit.block_hash != header.hash():
            raise LedgerError(f"height {height}: the certificate is for another block")

    def _accept(self, header: Header, table: ValidatorTable) -> None:
        self._decided_by = self.table
        self.height, self.head, self.table, self.header = header.height, header.hash(), table, header
