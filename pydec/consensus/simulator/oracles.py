"""What must hold whatever happens, watched while a simulation runs.

"No honest node is framed" is by far the strongest: a node that forgets a lock shows it in nearly every run, a
disagreement in one of a hundred (specification, section 8).
"""

from __future__ import annotations

from dataclasses import replace

from pydec.consensus.block import Block
from pydec.consensus.certificate import CertificateError, QuorumCertificate, TimeoutCertificate, Verifier
from pydec.consensus.effects import Refused, Report
from pydec.consensus.evidence import Detector, Evidence
from pydec.consensus.messages import Decision, Message, NewRound, Proposal, Timeout, Vote, decode
from pydec.consensus.place import Place
from pydec.consensus.signed import Kind, SignedStatement, timeout_body
from pydec.consensus.simulator.keys import Keyring
from pydec.consensus.simulator.state import ToyState
from pydec.consensus.validators import ValidatorTable
from pydec.errors import FrameError, SignatureError


class Violation(AssertionError):
    """An oracle has tripped."""


def _hash_of(encoded: bytes) -> bytes | None:
    try:
        return Block.decode(encoded).header.hash()
    except FrameError:
        return None


class Watch:
    """The oracles of one simulation.

    Args:
        genesis: the state at height 0.
        keys: of everybody.
        honest: node ids that follow the rules, crashes included.
    """

    def __init__(self, genesis: ToyState, keys: Keyring, honest: set[bytes]) -> None:
        self.chain_id, self.honest = genesis.chain_id, honest
        self.tables: dict[int, ValidatorTable] = {genesis.table.epoch: genesis.table}
        self.states: dict[bytes, ToyState] = {genesis.chain_id: genesis}
        self.decided: dict[int, set[bytes]] = {}
        self.heads: dict[int, bytes] = {}
        self.disagreements: set[int] = set()
        self.accused: dict[bytes, Evidence] = {}
        self.may_disagree = False
        self.n_messages = 0
        self._genesis, self._keys = genesis, keys
        self._verifier = Verifier(keys.verify)
        self._detectors: dict[tuple[int, int], Detector] = {}
        self._seen: set[bytes] = set()
        self._seen_certificates: set[QuorumCertificate | TimeoutCertificate] = set()
        self._own: dict[tuple[bytes, str, int, int], bytes] = {}

    # ------------------------------------------------------------ what is sent

    def sent(self, author: bytes, data: bytes) -> None:
        """A node has sent these bytes to somebody."""
        self.n_messages += 1
        if data in self._seen:
            return
        self._seen.add(data)
        try:
            message = decode(data, self.chain_id)
        except FrameError:
            if author in self.honest:
                raise
            return
        if author in self.honest:
            self._check_repetition(author, message, data)
        self._learn(author, message)

    def _check_repetition(self, author: bytes, message: Message, data: bytes) -> None:
        """A restart re-sends the same bytes."""
        if not isinstance(message, Proposal | Vote | Timeout):
            return
        kind = message.kind.name if isinstance(message, Vote) else type(message).__name__
        slot = (author, kind, message.height, message.round)
        if self._own.setdefault(slot, data) != data:
            raise Violation(f"an honest node sent two different {kind}s at {slot[2:]}")

    def _learn(self, author: bytes, message: Message) -> None:
        if isinstance(message, Proposal):
            block_hash = _hash_of(message.block)
            if block_hash is not None:
                self._observe(author, Kind.PROPOSAL, message, block_hash, message.signature)
            self._certificates(message.prepared, message.timeout)
        elif isinstance(message, Vote):
            self._observe(author, message.kind, message, message.block_hash, message.signature)
        elif isinstance(message, Timeout):
            body = timeout_body(message.high_round)
            if -1 <= message.high_round <= message.round:
                self._observe(author, Kind.TIMEOUT, message, body, message.signature)
            self._certificates(message.prepared, message.timeout)
        elif isinstance(message, NewRound):
            self._certificates(message.prepared, message.timeout)
        elif isinstance(message, Decision):
            self._certificates(message.commit)

    def _observe(
        self, author: bytes, kind: Kind, message: Proposal | Vote | Timeout, body: bytes, signature: bytes
    ) -> None:
        table = self.tables.get(message.epoch)
        index = None if table is None else table.index(author)
        if table is None or index is None:
            return
        where = (self.chain_id, message.epoch, message.height, message.round)
        self._said(author, table[index].key, SignedStatement(kind, *where, body, signature))

    def _said(self, author: bytes, key: bytes, statement: SignedStatement) -> None:
        detector = self._detectors.setdefault((statement.epoch, statement.height), Detector(1 << 12))
        if detector.knows(key, statement.kind, statement.round, statement.body):
            return
        try:
            self._verifier.check(key, statement.message(), statement.signature)
        except SignatureError:
            return  # a forgery proves nothing against anybody
        for evidence in detector.observe(key, statement):
            self.accused.setdefault(author, evidence)
            if author in self.honest:
                raise Violation(f"an honest node is framed: {evidence.describe()}")

    def _certificates(self, *certificates: QuorumCertificate | TimeoutCertificate | None) -> None:
        for certificate in certificates:
            if certificate is None or certificate in self._seen_certificates:
                continue
            self._seen_certificates.add(certificate)
            table = self.tables.get(certificate.epoch)
            if table is None:
                continue
            try:
                statements = certificate.statements(self.chain_id)
            except ValueError:
                continue
            for index, statement in statements:
                if index < len(table):
                    self._said(table[index].node_id, table[index].key, statement)

    # ------------------------------------------------------------ what is decided

    def appended(self, place: int, height: int, record: bytes) -> None:
        """An honest place has written a decision: continuity, validity, certificate, agreement."""
        message = decode(record, self.chain_id)
        if not isinstance(message, Decision) or message.height != height:
            raise Violation(f"place {place} wrote no decision at height {height}")
        self._certificates(message.commit)
        parent = self.heads.get(place, self.chain_id)
        before = self.states[parent]
        if before.height + 1 != height:
            raise Violation(f"place {place} wrote height {height} after {before.height}")
        block_hash = message.commit.block_hash
        if block_hash not in self.states:
            self.states[block_hash] = self._validate(before, parent, message)
            table = self.states[block_hash].table
            self.tables.setdefault(table.epoch, table)
        self.heads[place] = block_hash
        known = self.decided.setdefault(height, set())
        known.add(block_hash)
        if len(known) > 1:
            self.disagreements.add(height)
            if not self.may_disagree:
                raise Violation(f"height {height} has {len(known)} decided blocks")

    def _validate(self, before: ToyState, parent: bytes, message: Decision) -> ToyState:
        """Certificate and execution, from the genesis on, as anybody may check them."""
        try:
            message.commit.verify(self.chain_id, before.table, message.height, Kind.COMMIT, self._verifier)
        except CertificateError as error:
            raise Violation(f"the certificate of height {message.height} does not verify: {error}") from None
        self._check_binding(before.table, message.commit)
        block = Block.decode(message.block)
        block.check_body()
        block_hash = block.header.hash()
        place = Place(self.chain_id, before, parent, block.header.last_commit, self._verifier)
        first = block.header.last_commit is None
        if first != (message.height == 1) or block_hash != message.commit.block_hash:
            raise Violation(f"height {message.height} has a certificate of another block, or no parent's")
        try:
            state = place.validate(block_hash, block, message.block).state
        except Refused as error:
            raise Violation(f"height {message.height} was decided with {error}") from None
        assert isinstance(state, ToyState)
        return state

    def _check_binding(self, table: ValidatorTable, commit: QuorumCertificate) -> None:
        """A certificate means nothing in another epoch, height, round or chain."""
        height, other = commit.height, ValidatorTable(table.epoch + 1, table.validators)
        for moved, at, chain_id, where in (
            (replace(commit, epoch=other.epoch), other, self.chain_id, height),
            (replace(commit, height=height + 1), table, self.chain_id, height + 1),
            (replace(commit, round=commit.round + 1), table, self.chain_id, height),
            (commit, table, bytes(32), height),
        ):
            try:
                moved.verify(chain_id, at, where, Kind.COMMIT, self._verifier)
            except CertificateError:
                continue
            raise Violation(f"the certificate of height {height} can be replayed elsewhere")

    def restarted(self, place: int, head: bytes) -> None:
        """A place goes on from what its disk kept."""
        self.heads[place] = head

    def reported(self, place: int, report: Report) -> None:
        """An honest place has complained about somebody: it must not be honest."""
        if report.node in self.honest:
            raise Violation(f"place {place} reports an honest node: {report.reason}")

    # ------------------------------------------------------------ at the end

    def blamed(self, table: ValidatorTable) -> int:
        """The stake that is proven guilty."""
        indices = [table.index(node) for node in self.accused]
        return table.weight(index for index in indices if index is not None)
