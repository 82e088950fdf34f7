"""How two peers that share nothing but knowledge of each other's keys come to share secrets: SIGMA-I.

Four messages. A is the initiator, B the responder; ``th`` is a hash over the context and every byte so far::

    A -> B   version, suites, nonce_A, epk_A
    B -> A   version, suite, nonce_B, epk_B, sealed(certificate_B, Sign_B("responder", th))
    A -> B   version, sealed(certificate_A, Sign_A("initiator", th))
    B -> A   version, sealed("")

The certificates are those of run keys, which sign; what is sealed is so under keys of this handshake, which
also proves that the signer knows the secret (SIGMA's MAC) and hides who talks from those who only listen. The
context is in the hash: chain, epoch, size of the cluster, both ranks; the list of suites too, so that taking
the better one away is noticed. The ephemeral X25519 keys (RFC 7748) live as long as the handshake, which is
what makes yesterday's traffic unreadable to whoever steals today's keys.

Source: Krawczyk, "SIGMA: the 'SIGn-and-MAc' approach to authenticated Diffie-Hellman and its use in the IKE
protocols", CRYPTO 2003, section 5.2; key schedule after RFC 5869 (HKDF) with SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydec.crypto.runkey import CERTIFICATE_BYTES, RunCertificate
from pydec.crypto.signing import SIGNATURE_BYTES, SigningKey, verify
from pydec.crypto.suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Suite, choose, cipher
from pydec.errors import ConfigError, FrameError, ProtocolError, SignatureError

VERSION = 1
_DOMAIN = b"pydec.v1 handshake "
_SUITES = 4  # room for suites in the first message; unused places are zero
_DRAWN_BYTES = 32  # of a nonce, and of an ephemeral public key
_HELLO = struct.Struct(f"<BB{_SUITES}s{_DRAWN_BYTES}s{_DRAWN_BYTES}s")
_ANSWER = struct.Struct(f"<BBB{_DRAWN_BYTES}s{_DRAWN_BYTES}s")
_PROOF_BYTES = CERTIFICATE_BYTES + SIGNATURE_BYTES
_CONTEXT = struct.Struct("<32sQIII")
HELLO_BYTES = _HELLO.size
ANSWER_BYTES = _ANSWER.size + _PROOF_BYTES + TAG_BYTES
FINISH_BYTES = 2 + _PROOF_BYTES + TAG_BYTES
CONFIRM_BYTES = 2 + TAG_BYTES
_HELLO_KIND, _ANSWER_KIND, _FINISH_KIND, _CONFIRM_KIND = 1, 2, 3, 4


@dataclass(frozen=True)
class Credentials:
    """What a peer proves itself with, and whom it lets in.

    Args:
        key: run key of this process.
        certificate: of that key, by the identity.
        admit: called with (rank, identity); raises SignatureError, with the reason, unless that rank may have
            that identity.
        chain_id: 32 bytes; certificates must be for it.
        epoch: that certificates must cover.
        suites: that this peer takes, the faster one first.
    """

    key: SigningKey
    certificate: RunCertificate
    admit: Callable[[int, bytes], None]
    chain_id: bytes
    epoch: int
    suites: tuple[Suite, ...] = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)


@dataclass(frozen=True)
class Pair:
    """Whose handshake it is; both sides must see the same.

    Args:
        size: ranks in the cluster.
        epoch: of the view.
        initiator, responder: their ranks.
    """

    size: int
    epoch: int
    initiator: int
    responder: int


@dataclass(frozen=True)
class Secrets:
    """What a handshake comes to.

    Args:
        suite: to seal with.
        sending, receiving: 32 bytes each; one side's first is the other's second.
        identity: of the peer, proved.
    """

    suite: Suite
    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    identity: bytes


class Side:
    """One side of one handshake; makes each message from the one before, does no I/O.

    Args:
        pair: whose handshake.
        credentials: of this side.
        ephemeral: 32 secret bytes, fresh; drawn if None.
        nonce: 32 bytes, fresh; drawn if None.
    """

    def __init__(
        self,
        pair: Pair,
        credentials: Credentials,
        *,
        ephemeral: bytes | None = None,
        nonce: bytes | None = None,
    ) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self.pair, self.credentials = pair, credentials
        secret = os.urandom(_DRAWN_BYTES) if ephemeral is None else ephemeral
        self._private: Any = X25519PrivateKey.from_private_bytes(secret)
        self._public: bytes = self._private.public_key().public_bytes_raw()
        self._nonce = os.urandom(_DRAWN_BYTES) if nonce is None else nonce
        where = (pair.epoch, pair.size, pair.initiator, pair.responder)
        self._hash = hashlib.sha256(_DOMAIN + _CONTEXT.pack(credentials.chain_id, *where))
        self._secret = b""
        self._suite = Suite.CHACHA20_POLY1305
        self._identity = b""

    def _agree(self, peer: int, theirs: bytes) -> None:
        """The secret that this side's and that public key make; the ephemeral key is gone afterwards."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError:  # RFC 7748, section 6.1: all zero, so the peer's key is of small order
            raise ProtocolError(peer, "sent a key of small order in the handshake") from None
        self._private = None
        self._secret = extract(self._hash.digest(), shared)

    def _seal(self, role: bytes, text: bytes) -> bytes:
        tool = cipher(self._suite, expand(self._secret, _DOMAIN + role))
        return bytes(tool.encrypt(bytes(NONCE_BYTES), text, self._hash.digest()))

    def _open(self, peer: int, role: bytes, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        tool = cipher(self._suite, expand(self._secret, _DOMAIN + role))
        try:
            return bytes(tool.decrypt(bytes(NONCE_BYTES), sealed, self._hash.digest()))
        except InvalidTag:
            raise ProtocolError(
                peer, "and this rank have not seen the same handshake: a message was changed on the way, or "
                "the ranks are of different chains, epochs or sizes"
            ) from None  # fmt: skip

    def _prove(self, role: bytes) -> bytes:
        """This side's certificate and signature, sealed, and taken into the hash."""
        mine = self.credentials
        signature = mine.key.sign(_DOMAIN + role + self._hash.digest())
        sealed = self._seal(role, mine.certificate.encode() + signature)
        self._hash.update(sealed)
        return sealed

    def _check(self, peer: int, role: bytes, sealed: bytes) -> None:
        """See who the peer is.

        Raises:
            ProtocolError: it proves nothing, or is not to be let in.
        """
        text = self._open(peer, role, sealed)
        mine = self.credentials
        try:
            certificate = RunCertificate.decode(text[:CERTIFICATE_BYTES])
            certificate.verify(mine.chain_id, mine.epoch)
            verify(certificate.key, _DOMAIN + role + self._hash.digest(), text[CERTIFICATE_BYTES:])
            if certificate.identity == mine.certificate.identity and certificate.key == mine.certificate.key:
                raise SignatureError(
                    "it has this rank's own run key: its messages are this rank's, reflected"
                )
            mine.admit(peer, certificate.identity)
        except (SignatureError, FrameError) as error:
            raise ProtocolError(peer, f"is refused: {error}") from None
        self._identity = certificate.identity
        self._hash.update(sealed)

    def _secrets(self, *, initiator: bool) -> Secrets:
        secret = extract(self._hash.digest(), self._secret)
        to_responder, to_initiator = (expand(secret, b"pydec.v1 | " + way) for way in (b"A->B", b"B->A"))
        self._secret = b""
        ways = (to_responder, to_initiator) if initiator else (to_initiator, to_responder)
        return Secrets(self._suite, *ways, self._identity)


class Initiator(Side):
    """The side that speaks first."""

    def hello(self) -> bytes:
        """The first message."""
        suites = bytes(self.credentials.suites).ljust(_SUITES, b"\0")
        message = _HELLO.pack(_HELLO_KIND, VERSION, suites, self._nonce, self._public)
        self._hash.update(message)
        return message

    def finish(self, answer: bytes) -> bytes:
        """The third message, to the second.

        Raises:
            ProtocolError: the peer is not to be let in, or the message is not what it should be.
        """
        peer = self.pair.responder
        _expect(peer, answer, ANSWER_BYTES, _ANSWER_KIND)
        clear, sealed = answer[: _ANSWER.size], answer[_ANSWER.size :]
        _, _, suite, _, theirs = _ANSWER.unpack(clear)
        if suite not in self.credentials.suites:
            raise ProtocolError(peer, f"chose cipher suite {suite} in the handshake, which was not offered")
        self._suite = Suite(suite)
        self._hash.update(clear)
        self._agree(peer, theirs)
        self._check(peer, b"responder", sealed)
        return bytes([_FINISH_KIND, VERSION]) + self._prove(b"initiator")

    def confirmed(self, confirm: bytes) -> Secrets:
        """What it comes to, once the peer says that it has let this side in.

        Raises:
            ProtocolError: the message is not what it should be.
        """
        _expect(self.pair.responder, confirm, CONFIRM_BYTES, _CONFIRM_KIND)
        self._open(self.pair.responder, b"confirm", confirm[2:])
        return self._secrets(initiator=True)


class Responder(Side):
    """The side that answers."""

    def answer(self, hello: bytes) -> bytes:
        """The second message, to the first.

        Raises:
            ProtocolError: the message is not what it should be, or there is no suite that both have.
        """
        peer = self.pair.initiator
        _expect(peer, hello, HELLO_BYTES, _HELLO_KIND)
        _, _, offered, _, theirs = _HELLO.unpack(hello)
        known = [Suite(number) for number in offered if number in tuple(Suite)]
        try:
            self._suite = choose(self.credentials.suites, known)
        except ConfigError as error:
            raise ProtocolError(peer, f"is refused: {error}") from None
        clear = _ANSWER.pack(_ANSWER_KIND, VERSION, self._suite, self._nonce, self._public)
        self._hash.update(hello + clear)
        self._agree(peer, theirs)
        return clear + self._prove(b"responder")

    def accept(self, finish: bytes) -> tuple[bytes, Secrets]:
        """The fourth message, to the third, and what it comes to.

        Raises:
            ProtocolError: the peer is not to be let in, or the message is not what it should be.
        """
        peer = self.pair.initiator
        _expect(peer, finish, FINISH_BYTES, _FINISH_KIND)
        self._check(peer, b"initiator", finish[2:])
        confirm = bytes([_CONFIRM_KIND, VERSION]) + self._seal(b"confirm", b"")
        return confirm, self._secrets(initiator=False)


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, section 2.2): 32 bytes."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return bytes(HKDF.extract(SHA256(), salt, secret))


def expand(secret: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, section 2.3).

    Args:
        secret: 32 bytes, from ``extract``.
        info: what the result is for.
        length: bytes wanted.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    return bytes(HKDFExpand(SHA256(), length, info).derive(secret))


def _expect(peer: int, message: bytes, n_bytes: int, kind: int) -> None:
    if len(message) != n_bytes or message[0] != kind:
        raise ProtocolError(peer, f"sent {len(message)} bytes that are not message {kind} of a handshake")
    if message[1] != VERSION:
        raise ProtocolError(
            peer,
            f"has handshake version {message[1]}, this rank {VERSION}; all ranks must run the same pydec",
        )
