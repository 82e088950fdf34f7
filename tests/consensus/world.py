"""A small chain for tests: named keys, a genesis, and blocks whose certificates are signed or made up."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from pydec.codec.wire import blob
from pydec.consensus import messages
from pydec.consensus.attestation import Attestation, attest, collect
from pydec.consensus.block import NO_HASH, Block, Header, transactions_root
from pydec.consensus.certificate import QuorumCertificate
from pydec.consensus.genesis import Genesis
from pydec.consensus.light import encode_step
from pydec.consensus.replay import Replay
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.signed import Kind, signed_bytes
from pydec.consensus.state import snapshot
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.parts import Account
from pydec.consensus.transactions import Body, sign, statement
from pydec.crypto.signing import SigningKey

BOTH = Role.TRAINER | Role.VALIDATOR
NO_ATTESTATION = Attestation(b"", ())


def key(name: str) -> SigningKey:
    """The key of that name, always the same."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def account(name: str, roles: int = BOTH, stake: int = 100, balance: int = 0) -> Account:
    """An account of a genesis."""
    public = key(name).public
    return Account(public, public, f"at:{name}", int(roles), int(roles), balance, stake)


def genesis(*accounts: Account, rules: Rules | None = None, **options: str) -> Genesis:
    """A genesis of these accounts; else of validators a to d, of which a is admin and data owner."""
    chosen = accounts or (
        account("a", BOTH | Role.ADMIN | Role.DATA_OWNER, balance=1000),
        account("b", balance=50),
        account("c"),
        account("d"),
    )
    ordered = tuple(sorted(chosen, key=lambda a: a.node_id))
    return Genesis("test", ordered, rules or Rules(), tuple(sorted(options.items())))


class World:
    """A chain, its state, and everybody's keys.

    Args:
        start: the genesis.
        real: True signs certificates, which ``execute`` alone does not look at.
    """

    def __init__(self, start: Genesis | None = None, real: bool = False) -> None:
        self.genesis = start or genesis()
        self.state: ChainState = self.genesis.state()
        self.real = real
        self.blocks: list[tuple[Block, QuorumCertificate]] = []
        self.names = {a.node_id: a.address.removeprefix("at:") for a in self.genesis.accounts}
        self.names |= {key(name).public: name for name in map(chr, range(97, 123))}
        self.absent: set[str] = set()

    @property
    def chain_id(self) -> bytes:
        return self.genesis.chain_id

    def of(self, name: str) -> Account:
        return self.state.accounts[key(name).public]

    def tx(self, name: str, body: Body, sequence: int | None = None) -> bytes:
        """A transaction of that account, its next one unless told otherwise."""
        if sequence is None:
            known = self.state.accounts.get(key(name).public)
            sequence = known.sequence if known else 0
        return sign(key(name), self.chain_id, sequence, body)

    def attested(self, body, names: str | None = None):
        """``body`` with the signatures of these validators, all if None."""
        tables = (self.state.table, *(past.table for past in self.state.tables))
        table = next(table for table in tables if table.epoch == body.epoch)
        text = statement(body)
        shares = {
            index: attest(self.voter(v), self.chain_id, text)
            for index, v in enumerate(table.validators)
            if names is None or self.names[v.node_id] in names
        }
        return replace(body, attestation=collect(table, shares))

    def voter(self, validator) -> SigningKey:
        """The key that a validator votes with: its own, or the one called ``run NAME``."""
        name = self.names[validator.node_id]
        return key(name) if validator.key == validator.node_id else key(f"run {name}")

    def header(self) -> Header:
        """Of the next block, its roots zero."""
        state = self.state
        parent = self.blocks[-1][0].header.hash() if self.blocks else self.chain_id
        commit = self.blocks[-1][1] if self.blocks else None
        return Header(
            self.chain_id,
            state.table.epoch,
            state.height + 1,
            parent,
            commit,
            NO_HASH,
            NO_HASH,
            NO_HASH,
            0,
            state.leader,
        )

    def add(self, *transactions: bytes) -> ChainState:
        """Commit a block of these transactions."""
        header, table = self.header(), self.state.table
        after = self.state.execute(header, transactions)
        header = replace(
            header,
            tx_root=transactions_root(transactions),
            state_root=after.root(),
            next_validators_hash=after.table.digest(),
        )
        message = signed_bytes(Kind.COMMIT, self.chain_id, table.epoch, header.height, 0, header.hash())
        votes = {
            index: self.voter(validator).sign(message) if self.real else bytes(64)
            for index, validator in enumerate(table.validators)
            if self.names[validator.node_id] not in self.absent
        }
        commit = QuorumCertificate.of(Kind.COMMIT, table, header.height, 0, header.hash(), votes)
        self.blocks.append((Block(header, transactions), commit))
        self.state = after
        return after

    def run(self, name: str, body: Body) -> ChainState:
        """Commit a block of one transaction."""
        return self.add(self.tx(name, body))

    def snapshot(self, height: int) -> tuple[int, bytes, list[tuple[int, bytes]]]:
        """Height, record and steps of a snapshot, for ``FileStorage.install``; certificates must be real."""
        replay = Replay(self.genesis)
        for past in range(1, height + 1):
            replay.add(self.record(past))
        block, commit = self.blocks[height - 1]
        parts = (block.header.encode(), commit.encode(), snapshot.encode(replay.state))
        steps = [(step.table.epoch, encode_step(step)) for step in replay.steps]
        return height, b"".join(map(blob, parts)), steps

    def record(self, height: int) -> bytes:
        """The decision of a height, as the ledger file holds it."""
        block, commit = self.blocks[height - 1]
        return messages.encode(messages.Decision(height, commit, block.encode()), self.chain_id)
