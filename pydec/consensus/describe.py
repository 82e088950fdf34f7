"""Blocks, transactions and state as JSON can say them: keys and hashes in hexadecimal, names for numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydec.consensus.attestation import Attestation
from pydec.consensus.block import Block
from pydec.consensus.certificate import QuorumCertificate, from_bitmap
from pydec.consensus.evidence import Evidence
from pydec.consensus.roles import Role
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import EvidenceOf, Transaction, kind_name, transaction_id
from pydec.errors import FrameError


def plain(value: Any, name: str = "") -> Any:
    """A value of a transaction or of the state; ``name`` is its field's."""
    if name in ("roles", "granted", "barred"):
        return [word for word in Role(value).names.split(", ") if value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Attestation):
        return {"signers": from_bitmap(value.signers)}
    if name in ("options", "pairs"):
        return dict(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name), field.name) for field in fields(value)}
    return value


def transaction(data: bytes) -> dict[str, Any]:
    """One transaction of a committed block."""
    found = Transaction.decode(data)
    told: dict[str, Any] = {"kind": kind_name(data), "id": transaction_id(data).hex()}
    if not found.proven:
        told |= {"sender": found.sender.hex(), "sequence": found.sequence}
    body: dict[str, Any] = plain(found.body)
    if isinstance(found.body, EvidenceOf):
        try:
            body["evidence"] = Evidence.decode(found.body.evidence).describe()
        except FrameError as error:  # never in a committed block
            body["evidence"] = str(error)
    return told | body


def block(found: Block, commit: QuorumCertificate) -> dict[str, Any]:
    """One decided block, and who decided it."""
    header = found.header
    return {
        "height": header.height,
        "hash": header.hash().hex(),
        "parent": header.parent_hash.hex(),
        "epoch": header.epoch,
        "round": commit.round,
        "proposer": header.origin_proposer,
        "signers": commit.signers(),
        "state_root": header.state_root.hex(),
        "next_validators": header.next_validators_hash.hex(),
        "transactions": [transaction(data) for data in found.transactions],
    }


def state(found: ChainState) -> dict[str, Any]:
    """The state after a block."""
    return {
        "chain_id": found.chain_id.hex(),
        "height": found.height,
        "epoch": found.table.epoch,
        "effect_round": found.effect_round,
        "root": found.root().hex(),
        "stake": found.table.total,
        "supply": plain(found.supply),
        "validators": [v.node_id.hex() for v in found.table.validators],
        "accounts": [plain(account) for _, account in sorted(found.accounts.items())],
        "datasets": [plain(record) for _, record in sorted(found.datasets.items())],
        "run": plain(found.run),
        "rules": plain(found.rules),
    }
