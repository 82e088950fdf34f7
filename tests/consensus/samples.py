"""Validators with keys that are functions of a number, and certificates that they really signed."""

from __future__ import annotations

import hashlib

from pydec.consensus.block import NO_HASH, Block, Header, transactions_root
from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes, timeout_body
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.crypto.signing import SigningKey

CHAIN = hashlib.sha256(b"a chain of tests").digest()


def key(number: int) -> SigningKey:
    return SigningKey(hashlib.sha256(b"key %d" % number).digest())


def keys_and_table(stakes: list[int], epoch: int = 0) -> tuple[list[SigningKey], ValidatorTable]:
    """Keys in the table's order, and the table; stakes in that order too."""
    keys = sorted((key(number) for number in range(len(stakes))), key=lambda key: key.public)
    pairs = zip(keys, stakes, strict=True)
    return keys, ValidatorTable(epoch, tuple(Validator(k.public, k.public, stake) for k, stake in pairs))


def statement(
    key: SigningKey,
    kind: Kind,
    round: int,
    body: bytes,
    height: int = 1,
    epoch: int = 0,
    chain: bytes = CHAIN,
) -> SignedStatement:
    signature = key.sign(signed_bytes(kind, chain, epoch, height, round, body))
    return SignedStatement(kind, chain, epoch, height, round, body, signature)


def quorum_certificate(
    keys: list[SigningKey],
    table: ValidatorTable,
    signers: list[int],
    kind: Kind = Kind.COMMIT,
    round: int = 0,
    block_hash: bytes = NO_HASH,
    height: int = 1,
) -> QuorumCertificate:
    votes = {
        index: statement(keys[index], kind, round, block_hash, height, table.epoch).signature
        for index in signers
    }
    return QuorumCertificate.of(kind, table, height, round, block_hash, votes)


def timeout_certificate(
    keys: list[SigningKey],
    table: ValidatorTable,
    high_rounds: dict[int, int],
    round: int = 0,
    height: int = 1,
) -> TimeoutCertificate:
    votes = []
    for index, high in sorted(high_rounds.items()):
        message = signed_bytes(Kind.TIMEOUT, CHAIN, table.epoch, height, round, timeout_body(high))
        votes.append((index, high, keys[index].sign(message)))
    return TimeoutCertificate(table.epoch, height, round, tuple(votes))


def header(commit: QuorumCertificate | None = None, transactions: tuple[bytes, ...] = ()) -> Header:
    height = 1 if commit is None else commit.height + 1
    parent = CHAIN if commit is None else commit.block_hash
    return Header(CHAIN, 0, height, parent, commit, transactions_root(transactions), NO_HASH, NO_HASH, 0, 0)


def block(commit: QuorumCertificate | None = None, transactions: tuple[bytes, ...] = ()) -> Block:
    return Block(header(commit, transactions), transactions)
