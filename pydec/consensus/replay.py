"""Replaying decided blocks from the genesis: every certificate, hash and state root is checked."""

from __future__ import annotations

from pydec.consensus import messages
from pydec.consensus.block import Block
from pydec.consensus.certificate import CertificateError, QuorumCertificate, Verifier
from pydec.consensus.effects import Refused
from pydec.consensus.genesis import Genesis
from pydec.consensus.light import EpochStep
from pydec.consensus.place import Place
from pydec.consensus.signed import Kind
from pydec.consensus.state.chain import ChainState
from pydec.consensus.storage import Storage
from pydec.errors import FrameError, LedgerError


def recover(storage: Storage, genesis: Genesis, verifier: Verifier | None = None) -> Replay:
    """The chain on a node's own disk, for its restart: everything is checked again.

    Args:
        storage: of the node.
        genesis: of the chain.
        verifier: of signatures, see ``Replay``.

    Raises:
        LedgerError: a block does not follow.
    """
    replay = Replay(genesis, verifier)
    for height in range(1, storage.head + 1):
        record = storage.record(height)
        if record is None:
            raise LedgerError(f"height {height} is missing below the head {storage.head}")
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
    """

    def __init__(self, genesis: Genesis, verifier: Verifier | None = None) -> None:
        self.chain_id = genesis.chain_id
        self.state: ChainState = genesis.state()
        self.head = self.chain_id
        self.commit: QuorumCertificate | None = None
        self.steps: list[EpochStep] = []
        self._verifier = verifier or Verifier()

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
        return block
