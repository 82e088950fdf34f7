"""Replaying decided blocks: every certificate, hash and state root is checked.

From the genesis; or from a snapshot, to which the certificates of the epochs between lead.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from pydec.codec.wire import Reader
from pydec.consensus import messages
from pydec.consensus.block import Block, Header
from pydec.consensus.certificate import MAX_CERTIFICATE_BYTES, CertificateError, QuorumCertificate, Verifier
from pydec.consensus.effects import Refused
from pydec.consensus.file_storage import (
    FileStorage,
    read_blocks,
    read_genesis,
    read_snapshot,
    read_steps,
)
from pydec.consensus.genesis import Genesis
from pydec.consensus.handover import Certified, Shelf
from pydec.consensus.light import MOST_HEADER_BYTES, EpochStep, LightClient, decode_step, encode_step
from pydec.consensus.place import Place
from pydec.consensus.signed import Kind
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.snapshot import MAX_SNAPSHOT_BYTES
from pydec.errors import FrameError, LedgerError


def recover(storage: FileStorage, genesis: Genesis, verifier: Verifier | None = None) -> Replay:
    """The chain on a node's own disk, for its restart: everything is checked again.

    Args:
        storage: of the node.
        genesis: of the chain.
        verifier: of signatures, see ``Replay``.

    Raises:
        LedgerError: a block does not follow.
    """
    replay = Replay(genesis, verifier)
    if storage.base.height:
        stored = itertools.takewhile(lambda step: step is not None, map(storage.step, itertools.count(1)))
        replay.begin(storage.base.record, (step for step in stored if step is not None))
    for height in range(storage.base.height + 1, storage.head + 1):
        record = storage.record(height)
        if record is None:
            raise LedgerError(f"height {height} is missing below the head {storage.head}")
        replay.add(record)
    storage.keep_steps([encode_step(step) for step in replay.steps], replay.state.table.epoch)
    return replay


def replayed(directory: Path) -> Replay:
    """The chain in a ledger directory that another process may be writing, from where it begins; verified.

    Raises:
        LedgerError: there is none, or a damaged one.
    """
    genesis = read_genesis(directory)
    replay, base = Replay(genesis), read_snapshot(directory, genesis.chain_id)
    if base.height:
        replay.begin(base.record, read_steps(directory, genesis))
    with read_blocks(directory, genesis, base=base) as blocks:
        for _, record in blocks.records(replay.state.height + 1):
            replay.add(record)
    return replay


class Replay:
    """The state of a chain, advanced by its decisions.

    Args:
        genesis: of the chain.
        verifier: of signatures; it remembers good ones, so a block's own certificate and the copy in the next
            header cost one verification for each signature.

    Attributes:
        state: after the last block.
        head: hash of the last block, the chain id at height 0.
        commit: certificate of the last block.
        steps: an ``EpochStep`` for every block that changed the table: what a light client needs.
        base: height at which it began, by a snapshot that a quorum certified; 0: the genesis.
        shelf: the last states that newcomers may ask for.
    """

    def __init__(self, genesis: Genesis, verifier: Verifier | None = None) -> None:
        self.chain_id = genesis.chain_id
        self.state: ChainState = genesis.state()
        self.head = self.chain_id
        self.commit: QuorumCertificate | None = None
        self.steps: list[EpochStep] = []
        self.base = 0
        self.shelf = Shelf()
        self._verifier = Verifier() if verifier is None else verifier  # an empty one is false

    def begin(self, record: bytes, steps: Iterable[bytes]) -> None:
        """Begin at a snapshot instead of the genesis: the epochs up to it are verified, not its past.

        Args:
            record: header, certificate and state, see ``effects.Install``.
            steps: the epoch steps from the genesis on, encoded; what is later than the snapshot is left out.

        Raises:
            LedgerError: the epochs do not lead to the block, or the state is not the block's.
        """
        client = LightClient(self.chain_id, self.state.table, verifier=self._verifier)
        reader = Reader(record, "a snapshot's record")
        try:
            header = Header.decode(reader.blob(MOST_HEADER_BYTES))
            commit = QuorumCertificate.decode(reader.blob(MAX_CERTIFICATE_BYTES))
            data = reader.blob(MAX_SNAPSHOT_BYTES)
            reader.end()
            known = (decode_step(step) for step in steps)
            client.follow(itertools.takewhile(lambda step: step.header.height <= header.height, known))
            client.certify(header, commit)
            self.state = client.state(data)
        except (FrameError, LedgerError) as error:
            raise LedgerError(f"the snapshot that the ledger begins at: {error}") from None
        self.head, self.commit, self.base = client.head, commit, header.height
        self.shelf.add(Certified(header, commit, self.state))

    def add(self, record: bytes) -> Block:
        """Check and execute the next decision, as the ledger file holds it.

        Raises:
            LedgerError: it is not the next block of this chain; the message says why.
        """
        height = self.state.height + 1
        try:
            decision = messages.decode(record, self.chain_id)
            if not isinstance(decision, messages.Decision):
                raise LedgerError(
                    f"height {height}: a {type(decision).__name__} stands where a decision belongs"
                )
            place = Place(self.chain_id, self.state, self.head, self.commit, self._verifier)
            block_hash, block = place.parse(decision.block)
            commit = decision.commit
            commit.verify(self.chain_id, self.state.table, height, Kind.COMMIT, self._verifier)
            if commit.block_hash != block_hash or decision.height != height:
                raise LedgerError(f"height {height}: the certificate is for another block")
            held = place.validate(block_hash, block, decision.block)
        except (FrameError, CertificateError, Refused) as error:
            raise LedgerError(f"height {height}: {error}") from None
        assert isinstance(held.state, ChainState)
        if held.state.changed == height:
            self.steps.append(EpochStep(block.header, commit, held.state.table))
        self.state, self.head, self.commit = held.state, block_hash, commit
        self.shelf.add(Certified(block.header, commit, held.state))
        return block
