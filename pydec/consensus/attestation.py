"""A quorum's signatures under statements that are not votes: checkpoints, audits, deaths, the run's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydec.codec import fields
from pydec.consensus.certificate import Verify, from_bitmap, to_bitmap
from pydec.consensus.signed import Signer
from pydec.consensus.validators import MAX_VALIDATORS, ValidatorTable
from pydec.crypto.signing import verify
from pydec.errors import SignatureError, TransactionError

_DOMAIN = b"pydec.attest.v1"


@dataclass(frozen=True)
class Attestation:
    """Who signed, and the signatures in the order of their indices in the epoch's table.

    Args:
        signers: one bit for each validator, that of validator i is bit i % 8 of byte i // 8.
        signatures: 64 bytes each.
    """

    signers: bytes
    signatures: tuple[bytes, ...]

    def verify(self, table: ValidatorTable, chain_id: bytes, statement: bytes) -> None:
        """Check that a quorum of ``table`` signed ``statement``; cheap checks first, then the signatures.

        Raises:
            TransactionError: with the check that failed.
        """
        self.verify_each(table, chain_id, [statement] * len(self.signatures))

    def verify_each(self, table: ValidatorTable, chain_id: bytes, statements: Sequence[bytes]) -> None:
        """As ``verify``, where every signer has a statement of its own, in the order of the signatures.

        Raises:
            TransactionError: with the check that failed.
        """
        indices = from_bitmap(self.signers)
        if len(self.signers) != -(-len(table) // 8) or (indices and indices[-1] >= len(table)):
            raise TransactionError(
                f"an attestation of epoch {table.epoch} needs {len(table)} bits, no others set"
            )
        if len(indices) != len(self.signatures):
            raise TransactionError(f"{len(indices)} signers attested with {len(self.signatures)} signatures")
        if len(indices) != len(statements):
            raise TransactionError(f"{len(indices)} signers attested {len(statements)} statements")
        stake = table.weight(indices)
        if not table.quorum(stake):
            raise TransactionError(f"stake {stake} of {table.total} attested, which is no quorum")
        for index, signature, statement in zip(indices, self.signatures, statements, strict=True):
            try:
                verify(table[index].key, _DOMAIN + chain_id + statement, signature)
            except SignatureError as error:
                raise TransactionError(f"attestation of validator {index}: {error}") from None


def attest(key: Signer, chain_id: bytes, statement: bytes) -> bytes:
    """One validator's signature, 64 bytes."""
    return key.sign(_DOMAIN + chain_id + statement)


def verify_share(
    table: ValidatorTable, index: int, chain_id: bytes, statement: bytes, signature: bytes
) -> None:
    """Check one validator's signature while they are collected.

    Raises:
        SignatureError: it is not.
    """
    check_share(verify, table, index, chain_id, statement, signature)


def check_share(
    verify: Verify,
    table: ValidatorTable,
    index: int,
    chain_id: bytes,
    statement: bytes,
    signature: bytes,
) -> None:
    """As ``verify_share``, with another ``verify``: that of simulations."""
    verify(table[index].key, _DOMAIN + chain_id + statement, signature)


def collect(table: ValidatorTable, shares: Mapping[int, bytes]) -> Attestation:
    """The attestation of checked signatures, by index in the table."""
    order = sorted(shares)
    return Attestation(to_bitmap(order, len(table)), tuple(shares[index] for index in order))


ATTESTATION = fields.record(
    Attestation,
    signers=fields.blob((MAX_VALIDATORS + 7) // 8),
    signatures=fields.many(fields.SIGNATURE, MAX_VALIDATORS),
)
