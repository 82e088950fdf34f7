"""Transactions: what a block may hold. Bodies, their signatures, and one encoding for each.

Signed ones carry sender, the sender's next sequence number (so none is executed twice) and a signature of the
sender's identity key. Proven ones need neither: evidence, downtime and what a quorum attested convince by
themselves, whoever brings them, and the state refuses them a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pydec.codec import fields
from pydec.codec.fields import DIGEST, SIGNATURE, U8, U32, U64, Codec
from pydec.consensus.attestation import ATTESTATION, Attestation
from pydec.consensus.equivocation import Equivocation
from pydec.consensus.evidence import MAX_EVIDENCE_BYTES
from pydec.consensus.roles import ALL_ROLES
from pydec.consensus.validators import MAX_VALIDATORS
from pydec.crypto.hashing import sha256
from pydec.crypto.runkey import CERTIFICATE_BYTES
from pydec.crypto.signing import SigningKey, verify
from pydec.errors import FrameError

NO_DIGEST = bytes(32)
MOST_GRANT_BYTES = 512
_DOMAIN = b"pydec.tx.v1"
_FIRST_PROVEN = 32


@dataclass(frozen=True)
class Join:
    """The sender becomes a member.

    Args:
        roles: asked for.
        stake: bonded from the balance; under ``pow`` and ``invite`` the least stake comes with the entry.
        address: where it can be reached.
        certificate: of the run key that votes; empty: the identity key votes itself.
        block, nonce: the puzzle's solution and the recent block it is bound to; zero without a puzzle.
    """

    roles: int
    stake: int
    address: str
    certificate: bytes = b""
    block: bytes = NO_DIGEST
    nonce: int = 0


@dataclass(frozen=True)
class Leave:
    """The sender stops being a member; its stake is locked for the evidence window."""


@dataclass(frozen=True)
class Stake:
    """The sender bonds ``amount`` from its balance (``more`` = 1), or unbonds it (0)."""

    more: int
    amount: int


@dataclass(frozen=True)
class Transfer:
    """``amount`` of the sender's balance goes to ``to``, which need not exist yet."""

    to: bytes
    amount: int


@dataclass(frozen=True)
class Key:
    """The sender votes with another run key from the next epoch on; no certificate: its identity."""

    certificate: bytes


@dataclass(frozen=True)
class Dataset:
    """A data owner registers a manifest.

    Args:
        root: Merkle root of the manifest, which names the data set from then on.
        name: for people.
        replicas: copies of every chunk, or with ``parity`` > 0 the number of data fragments.
        parity: parity fragments of erasure coding; 0: plain copies.
        encrypted: 1 if reading needs a granted key; see ``grants``.
        parent: root of the data set that this one extends, with its generation of keys; zero: none.
    """

    root: bytes
    name: str
    replicas: int
    parity: int
    encrypted: int
    parent: bytes = NO_DIGEST


@dataclass(frozen=True)
class Grant:
    """Give ``grantee`` roles (an admin may), or a data set's wrapped key (its owner may): one of the two."""

    grantee: bytes
    roles: int = 0
    dataset: bytes = NO_DIGEST
    generation: int = 0
    wrapped: bytes = b""


@dataclass(frozen=True)
class Revoke:
    """Take roles, or a data set's key, from ``grantee``; the data set's next chunks get a new generation."""

    grantee: bytes
    roles: int = 0
    dataset: bytes = NO_DIGEST


@dataclass(frozen=True)
class Config:
    """An admin sets options of the run: pairs (name, value), sorted by name; see ``options.py``."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Beacon:
    """The sender's training has reached ``round``."""

    round: int


@dataclass(frozen=True)
class Begin:
    """An admin starts a run: its id, and the digest of its full configuration."""

    run_id: bytes
    config: bytes


@dataclass(frozen=True)
class EvidenceOf:
    """Two statements signed by ``node`` that contradict each other, encoded by ``consensus.evidence``."""

    node: bytes
    evidence: bytes


@dataclass(frozen=True)
class Forgery:
    """``node`` signed that it gave other bytes than it was asked for; see ``crypto.serving``.

    Args:
        node: whose identity key signed it.
        asker, request: rank of who asked, and its number of the request.
        name: of the object that was asked for.
        digest: BLAKE3 of what was sent, another one.
        signature: of ``node``.
    """

    node: bytes
    asker: int
    request: int
    name: bytes
    digest: bytes
    signature: bytes


@dataclass(frozen=True)
class Evict:
    """``node`` was absent from more than half of the last blocks, as the chain shows."""

    node: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A quorum of ``epoch`` holds the bytes of the checkpoint of ``round`` with Merkle root ``root``."""

    epoch: int
    round: int
    root: bytes
    attestation: Attestation


@dataclass(frozen=True)
class Audit:
    """A quorum of ``epoch`` re-ran ``subject``'s step of ``round``.

    Args:
        guilty: 1 if the digest that the subject had signed is not that of the step; its stake is lost.
        digest: of the step as the auditors computed it.
    """

    epoch: int
    subject: bytes
    round: int
    guilty: int
    digest: bytes
    attestation: Attestation


@dataclass(frozen=True)
class End:
    """A quorum of ``epoch`` agrees that the run ended after ``round`` with the model of root ``root``."""

    epoch: int
    run_id: bytes
    round: int
    root: bytes
    attestation: Attestation


@dataclass(frozen=True)
class Dead:
    """A quorum of ``epoch`` holds the member ``node`` for dead; it need not have done anything wrong.

    Args:
        epoch: in which it was signed.
        node: the member.
        rounds: by signer, in the order of the signatures: the training round that it does not begin before
            it knows what became of this. Each signs its own.
        attestation: of the quorum.
    """

    epoch: int
    node: bytes
    rounds: tuple[int, ...]
    attestation: Attestation


@dataclass(frozen=True)
class Withheld:
    """A quorum of ``epoch`` challenged ``node`` for the object ``name`` of a data set, and got no proof."""

    epoch: int
    node: bytes
    dataset: bytes
    name: bytes
    attestation: Attestation


Body: TypeAlias = (
    Join | Leave | Stake | Transfer | Key | Dataset | Grant | Revoke | Config | Beacon | Begin
    | EvidenceOf | Evict | Checkpoint | Audit | End | Dead | Forgery | Equivocation | Withheld
)  # fmt: skip
Attested: TypeAlias = Checkpoint | Audit | End | Withheld

_FLAG = fields.integer(1, 0, 1)
_ROLES = fields.integer(2, 0, int(ALL_ROLES))
_CERTIFICATE = fields.blob(CERTIFICATE_BYTES)
KINDS: dict[int, tuple[type[Body], Codec[Any]]] = {
    1: (Join, fields.record(
        Join, roles=_ROLES, stake=fields.AMOUNT, address=fields.ADDRESS, certificate=_CERTIFICATE,
        block=DIGEST, nonce=U64,
    )),
    2: (Leave, fields.record(Leave)),
    3: (Stake, fields.record(Stake, more=_FLAG, amount=fields.AMOUNT)),
    4: (Transfer, fields.record(Transfer, to=DIGEST, amount=fields.AMOUNT)),
    5: (Key, fields.record(Key, certificate=_CERTIFICATE)),
    6: (Dataset, fields.record(
        Dataset, root=DIGEST, name=fields.text(64), replicas=U8, parity=U8, encrypted=_FLAG, parent=DIGEST
    )),
    7: (Grant, fields.record(
        Grant, grantee=DIGEST, roles=_ROLES, dataset=DIGEST, generation=U32,
        wrapped=fields.blob(MOST_GRANT_BYTES)
    )),
    8: (Revoke, fields.record(Revoke, grantee=DIGEST, roles=_ROLES, dataset=DIGEST)),
    9: (Config, fields.record(Config, pairs=fields.PAIRS)),
    10: (Beacon, fields.record(Beacon, round=fields.ROUND)),
    11: (Begin, fields.record(Begin, run_id=DIGEST, config=DIGEST)),
    32: (EvidenceOf, fields.record(EvidenceOf, node=DIGEST, evidence=fields.blob(MAX_EVIDENCE_BYTES))),
    33: (Evict, fields.record(Evict, node=DIGEST)),
    34: (Checkpoint, fields.record(Checkpoint, epoch=U64, round=U64, root=DIGEST, attestation=ATTESTATION)),
    35: (Audit, fields.record(
        Audit, epoch=U64, subject=DIGEST, round=U64, guilty=_FLAG, digest=DIGEST, attestation=ATTESTATION
    )),
    36: (End, fields.record(End, epoch=U64, run_id=DIGEST, round=U64, root=DIGEST, attestation=ATTESTATION)),
    37: (Dead, fields.record(
        Dead, epoch=U64, node=DIGEST, rounds=fields.many(fields.ROUND, MAX_VALIDATORS),
        attestation=ATTESTATION
    )),
    38: (Equivocation, fields.record(
        Equivocation, node=DIGEST, run_id=DIGEST, epoch=U64, round=U64, number=U32, first=DIGEST,
        first_signature=SIGNATURE, second=DIGEST, second_signature=SIGNATURE
    )),
    39: (Forgery, fields.record(
        Forgery, node=DIGEST, asker=U32, request=U32, name=DIGEST, digest=DIGEST, signature=SIGNATURE
    )),
    40: (Withheld, fields.record(
        Withheld, epoch=U64, node=DIGEST, dataset=DIGEST, name=DIGEST, attestation=ATTESTATION
    )),
}  # fmt: skip
_KIND_OF = {kind: number for number, (kind, _) in KINDS.items()}


@dataclass(frozen=True)
class Transaction:
    """A body, and who answers for it.

    Args:
        body: what is to be done.
        sender: identity key; 32 zero bytes for a proven one.
        sequence: the sender's number of executed transactions; 0 for a proven one.
        signature: over chain and all of the above; empty for a proven one.
    """

    body: Body
    sender: bytes = NO_DIGEST
    sequence: int = 0
    signature: bytes = b""

    @property
    def proven(self) -> bool:
        """Whether it needs no sender."""
        return _KIND_OF[type(self.body)] >= _FIRST_PROVEN

    def encode(self) -> bytes:
        """The bytes that ``decode`` reads."""
        return self._unsigned() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Transaction:
        """A transaction from its bytes; no signature is checked.

        Raises:
            FrameError: they are not the one encoding of a transaction.
        """
        kind = data[0] if data else 0
        if kind not in KINDS:
            raise FrameError(f"no transaction is of kind {kind}")
        codec = KINDS[kind][1]
        if kind >= _FIRST_PROVEN:
            return cls(codec.decode(data[1:], kind_name(data)))
        if len(data) < 105:
            raise FrameError(
                f"a signed transaction of {len(data)} bytes has no room for sender and signature"
            )
        body = codec.decode(data[41:-64], kind_name(data))
        return cls(body, data[1:33], int.from_bytes(data[33:41], "big"), data[-64:])

    def verify(self, chain_id: bytes) -> None:
        """Check the sender's signature, if it needs one.

        Raises:
            SignatureError: it is not the sender's, or for another chain.
        """
        if not self.proven:
            verify(self.sender, _DOMAIN + chain_id + self._unsigned(), self.signature)

    def _unsigned(self) -> bytes:
        kind = _KIND_OF[type(self.body)]
        body: bytes = KINDS[kind][1].encode(self.body)
        if kind >= _FIRST_PROVEN:
            return bytes([kind]) + body
        return bytes([kind]) + self.sender + self.sequence.to_bytes(8, "big") + body


def sign(key: SigningKey, chain_id: bytes, sequence: int, body: Body) -> bytes:
    """The bytes of a transaction that ``key`` sends as its number ``sequence``.

    Raises:
        FrameError: a field of the body is out of its range.
    """
    bare = Transaction(body, key.public, sequence)
    unsigned = bare._unsigned()
    return unsigned + key.sign(_DOMAIN + chain_id + unsigned)


def prove(body: Body) -> bytes:
    """The bytes of a transaction that needs no sender."""
    return Transaction(body).encode()


def statement(body: Attested | Dead) -> bytes:
    """What the members of a quorum sign: everything of the body but their signatures."""
    empty = replace(body, attestation=Attestation(b"", ()))
    kind = _KIND_OF[type(body)]
    return bytes([kind]) + KINDS[kind][1].encode(empty)


def statements(body: Dead) -> list[bytes]:
    """What each signer of a death signs: as ``statement``, with its own round alone."""
    return [statement(replace(body, rounds=(round,))) for round in body.rounds]


def transaction_id(data: bytes) -> bytes:
    """Name of a transaction: SHA-256 of its bytes."""
    return sha256(data)


def kind_name(data: Sequence[int]) -> str:
    """Such as ``JOIN``; ``?`` for none."""
    kind = KINDS.get(data[0]) if len(data) else None
    return kind[0].__name__.upper().removesuffix("OF") if kind else "?"
