"""Two peers come to the same secrets, and to none if anything was changed, reflected or is not theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.crypto.handshake import Credentials, Initiator, Pair, Responder, Side, expand, extract
from pydec.crypto.runkey import certify
from pydec.crypto.signing import SigningKey
from pydec.crypto.suites import Suite
from pydec.errors import ProtocolError, SignatureError

CHAIN = bytes([7]) * 32
IDENTITIES = [SigningKey(bytes([n]) * 32) for n in range(3)]
RUN_KEYS = [SigningKey(bytes([100 + n]) * 32) for n in range(3)]
PAIR = Pair(4, 0, 1, 2)


def credentials(n, *, admits=None, epochs=(5, 9), chain=CHAIN, **changes):
    def admit(rank, identity):
        if admits is not None and identity != IDENTITIES[admits].public:
            raise SignatureError("its key is not on the list")

    certificate = certify(IDENTITIES[n], RUN_KEYS[n], chain, bytes(32), epochs)
    return replace(Credentials(RUN_KEYS[n], certificate, admit, CHAIN, 7), **changes)


def shake(first, second, meddle=lambda number, message: message, pairs=(PAIR, PAIR)):
    a, b = Initiator(pairs[0], first), Responder(pairs[1], second)
    answer = b.answer(meddle(0, a.hello()))
    finish = a.finish(meddle(1, answer))
    confirm, theirs = b.accept(meddle(2, finish))
    return a.confirmed(meddle(3, confirm)), theirs


def test_both_come_to_the_same_secrets_and_know_each_other():
    ours, theirs = shake(credentials(1, admits=2), credentials(2, admits=1))
    assert (ours.sending, ours.receiving) == (theirs.receiving, theirs.sending)
    assert ours.sending != ours.receiving
    assert (ours.identity, theirs.identity) == (IDENTITIES[2].public, IDENTITIES[1].public)
    assert ours.suite is theirs.suite is Suite.AES_256_GCM
    assert ours.sending.hex() not in repr(ours)


def test_the_same_peers_never_come_to_the_same_secrets_twice():
    """What makes nonces safe after a restore, and yesterday's traffic after a theft."""
    once, again = (shake(credentials(1), credentials(2))[0] for _ in range(2))
    assert len({once.sending, once.receiving, again.sending, again.receiving}) == 4


def test_a_machine_that_is_slow_at_aes_gets_chacha():
    ours, theirs = shake(credentials(1), credentials(2, suites=tuple(reversed(Suite))))
    assert ours.suite is theirs.suite is Suite.CHACHA20_POLY1305


@pytest.mark.parametrize("message", range(4))
@pytest.mark.parametrize("place", [0, 1, 3, 10, 40, 60, 70, -1])
def test_every_flipped_bit_ends_it(message, place):
    def flip(number, data):
        if number != message:
            return data
        changed = bytearray(data)
        changed[place % len(data)] ^= 1
        return bytes(changed)

    with pytest.raises(ProtocolError, match=r"rank [12] "):
        shake(credentials(1), credentials(2), flip)


@pytest.mark.parametrize("message", range(4))
@pytest.mark.parametrize("cut", [0, 1, -1])
def test_a_truncated_message_ends_it(message, cut):
    with pytest.raises(ProtocolError, match=r"rank \d sent \d+ bytes that are not message"):
        shake(credentials(1), credentials(2), lambda number, data: data[:cut] if number == message else data)


def test_a_downgrade_is_noticed():
    """Whoever takes the better suite out of the first message changes what both sides hash."""

    def weaken(number, data):
        return data[:2] + bytes([Suite.CHACHA20_POLY1305, 0, 0, 0]) + data[6:] if number == 0 else data

    with pytest.raises(ProtocolError, match="rank 2 and this rank have not seen the same handshake"):
        shake(credentials(1), credentials(2), weaken)
    with pytest.raises(
        ProtocolError, match="rank 2 chose cipher suite 2 in the handshake, which was not offered"
    ):
        Initiator(PAIR, credentials(1, suites=(Suite.AES_256_GCM,))).finish(
            Responder(PAIR, credentials(2)).answer(weaken(0, Initiator(PAIR, credentials(1)).hello()))
        )


def test_another_version_is_named():
    with pytest.raises(ProtocolError, match=r"rank 1 has handshake version 2, this rank 1"):
        shake(credentials(1), credentials(2), lambda n, data: bytes([data[0], 2]) + data[2:])


def test_a_man_in_the_middle_cannot_show_a_key_that_is_let_in():
    """He speaks with each under keys of his own; all he lacks is a run key that the identity certified."""
    with pytest.raises(ProtocolError, match="rank 2 is refused: its key is not on the list"):
        shake(credentials(1, admits=2), credentials(0))
    stolen = credentials(2).certificate  # he has seen it, but not the run key in it
    with pytest.raises(ProtocolError, match="rank 2 is refused: no signature of key"):
        shake(credentials(1, admits=2), credentials(0, certificate=stolen))


def test_the_responder_checks_too():
    with pytest.raises(ProtocolError, match="rank 1 is refused: its key is not on the list"):
        shake(credentials(0), credentials(2, admits=1))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epochs": (1, 6)}, "covers epochs 1 to 6, not 7"),
        ({"epochs": (8, 9)}, "covers epochs 8 to 9, not 7"),
        ({"chain": bytes(32)}, "is for chain 0000000000000000"),
    ],
)
def test_a_certificate_that_does_not_hold_here_is_refused(changes, why):
    with pytest.raises(ProtocolError, match=f"rank 2 is refused: the run certificate .*{why}"):
        shake(credentials(1), credentials(2, **changes))


@pytest.mark.parametrize("other", [Pair(5, 0, 1, 2), Pair(4, 1, 1, 2), Pair(4, 0, 0, 2), Pair(4, 0, 1, 3)])
def test_another_cluster_epoch_or_rank_is_refused(other):
    with pytest.raises(ProtocolError, match="have not seen the same handshake"):
        shake(credentials(1), credentials(2), pairs=(PAIR, other))


def test_another_chain_is_refused():
    with pytest.raises(ProtocolError, match="have not seen the same handshake"):
        shake(credentials(1), credentials(2, chain_id=bytes(32)))


def test_reflected_messages_are_refused():
    with pytest.raises(ProtocolError, match="not message 2 of a handshake"):
        (first := Initiator(PAIR, credentials(1))).finish(first.hello())
    with pytest.raises(ProtocolError, match="its messages are this rank's, reflected"):
        shake(credentials(1), credentials(1))


def test_a_replayed_handshake_is_refused():
    first, second = Initiator(PAIR, credentials(1)), Responder(PAIR, credentials(2))
    hello = first.hello()
    finish = first.finish(second.answer(hello))
    later = Responder(PAIR, credentials(2))
    later.answer(hello)
    with pytest.raises(ProtocolError, match="rank 1 and this rank have not seen the same handshake"):
        later.accept(finish)


def test_a_key_of_small_order_is_refused():
    def small(number, data):
        return data[:-32] + bytes(32) if number == 0 else data

    with pytest.raises(ProtocolError, match="rank 1 sent a key of small order"):
        shake(credentials(1), credentials(2), small)


def test_x25519_is_the_standards():
    """RFC 7748, section 6.1: Alice's key, Bob's public one, and what they share."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    side = Side(PAIR, credentials(1), ephemeral=alice)
    assert side._public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    salt = side._hash.digest()
    side._agree(2, bob)
    assert side._secret == extract(salt, shared)


def test_hkdf_is_the_standards():
    """RFC 5869, appendix A.1."""
    secret = extract(bytes(range(13)), b"\x0b" * 22)
    assert secret.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert expand(secret, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
