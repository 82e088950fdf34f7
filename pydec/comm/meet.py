"""All ranks shake hands with all others, once, before anything else is said.

The lower rank of a pair begins. A rank goes through the four messages of ``crypto.handshake`` side by side
for all its peers, so that everyone's first is on its way before anybody waits. A side that is not content
sends a refusal in place of its next message and goes on with the others; nobody waits longer than a part
of the deadline for one message, so that a rank that hangs is not taken for all those that wait for it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydec.comm.identity import Identity
from pydec.comm.renewal import Renewal
from pydec.comm.secure import SecureTransport
from pydec.comm.sessions import Sessions
from pydec.comm.transport import Pending, Stream, Transport
from pydec.crypto.handshake import ANSWER_BYTES, Credentials, Initiator, Pair, Responder, Secrets
from pydec.crypto.seal import Limits
from pydec.errors import FrameError, PeerError, PeerLost, PeerTimeout, ProtocolError, SetupError

_log = logging.getLogger("pydec.secure")
_TAG = (1 << 22) + (1 << 17)  # and the three above it
_PHASES = 4
_FIRST = 0.6  # of the deadline: ranks come here at different times, and answer at once from then on
_REFUSAL = b"\xff\x01"  # no reason: the other side has proved nothing yet, and might be anybody


@dataclass
class Handshakes:
    """What came of one rank's handshakes.

    Attributes:
        secrets: by peer, of those that have proved themselves.
        shut: by peer, why not.
        shut_by: peers that do not let this rank in.
    """

    secrets: dict[int, Secrets] = field(default_factory=dict)
    shut: dict[int, str] = field(default_factory=dict)
    shut_by: set[int] = field(default_factory=set)


def seal(
    transport: Transport, identity: Identity, *, pad: bool = False, limits: Limits | None = None
) -> SecureTransport:
    """Shake hands with all ranks and return a transport that seals; all ranks call it together.

    Peers that are not let in count as lost where the MPI survives that; elsewhere the job ends.

    Args:
        transport: any stream of the cluster, the CONTROL stream at rest; closed by the result.
        identity: who this rank is.
        pad: whether to hide lengths; the same on all ranks.
        limits: when keys make their successors.

    Raises:
        ProtocolError: a peer is not to be let in, and the job cannot do without it.
        SetupError: more than a third of the others do not let this rank in, or it has another's key.

    Cost: 2 round trips; four Ed25519 verifications, two signatures and an X25519 key and exchange per
    peer: about 0.5 ms; about 900 bytes each way.
    """
    credentials = identity.credentials()
    link = transport.stream(Stream.CONTROL)
    made = shake(link, credentials)
    if identity.alone:
        _one_each(made, link.rank, credentials.certificate.identity)
    for peer, why in sorted(made.shut.items()):
        _log.warning("rank %d: rank %d is shut out: it %s", link.rank, peer, why)
    if len(made.shut_by) > (link.size - 1) // 3:
        who = ", ".join(map(str, sorted(made.shut_by)))
        raise SetupError(
            f"ranks {who} do not let this rank in: its key is not the one they expect, is of another chain, "
            "or was used twice; they say why in their output (a host that is new to a run that goes on needs "
            "its --key, --peers or --ledger beside --resume)"
        )
    if made.shut and not link.tolerant:
        peer = min(made.shut)
        raise ProtocolError(peer, made.shut[peer])
    sessions = Sessions(
        link.rank, link.size, 0, made.secrets, made.shut, limits or Limits(), pad, identity.words
    )  # fmt: skip
    whole = SecureTransport(transport.stream(Stream.GOSSIP), sessions)
    for stream in Stream:
        whole.stream(stream)
    control = whole.stream(Stream.CONTROL)
    control.renewal = Renewal(sessions, identity, control.post_handshake, control.now)
    return whole


def shake(link: Transport, credentials: Credentials) -> Handshakes:
    """The handshakes of one rank with all others.

    Args:
        link: a stream on which nothing else happens.
        credentials: of this rank.
    """
    return _Shaker(link, credentials).run()


def _one_each(made: Handshakes, rank: int, mine: bytes) -> None:
    """Shut out who has the identity of a lower rank."""
    holders = {mine: rank}
    for peer in sorted(made.secrets):
        identity = made.secrets[peer].identity
        holder = holders.setdefault(identity, peer)
        if holder == rank and peer < rank:
            raise SetupError(
                f"this rank has key {mine.hex()[:16]}, and so has rank {peer}; each process needs a key "
                f"of its own"
            )
        if holder != peer:
            made.shut[peer] = f"has key {identity.hex()[:16]}, which is rank {holder}'s: one process per key"
            del made.secrets[peer]


class _Shaker:
    """The four messages, with all peers side by side."""

    def __init__(self, link: Transport, credentials: Credentials) -> None:
        self._link, self._credentials = link, credentials
        self._result = Handshakes()
        self._sends: list[Pending] = []
        self._began_s = link.now()

    def run(self) -> Handshakes:
        link, result = self._link, self._result
        below, above = range(link.rank), range(link.rank + 1, link.size)
        firsts = {peer: Initiator(self._pair(link.rank, peer), self._credentials) for peer in above}
        seconds = {peer: Responder(self._pair(peer, link.rank), self._credentials) for peer in below}
        hellos, finishes = (self._expect(below, number) for number in (0, 2))
        answers, confirms = (self._expect(above, number) for number in (1, 3))
        for peer, first in firsts.items():
            self._send(peer, 0, first.hello())
        for peer, second in seconds.items():
            self._step(peer, 1, hellos, second.answer)
        for peer, first in firsts.items():
            self._step(peer, 2, answers, first.finish)

        def accept(peer: int, finish: bytes) -> bytes:
            confirm, result.secrets[peer] = seconds[peer].accept(finish)
            return confirm

        for peer in seconds:
            self._step(peer, 3, finishes, lambda finish, peer=peer: accept(peer, finish))  # type: ignore[misc]

        def confirmed(peer: int, confirm: bytes) -> None:
            result.secrets[peer] = firsts[peer].confirmed(confirm)

        for peer in firsts:
            self._step(peer, 4, confirms, lambda confirm, peer=peer: confirmed(peer, confirm))  # type: ignore[misc]
        self._finish({**hellos, **answers}, {**finishes, **confirms})
        return result

    def _pair(self, initiator: int, responder: int) -> Pair:
        return Pair(self._link.size, 0, initiator, responder)

    def _expect(self, peers: Iterable[int], number: int) -> dict[int, tuple[Pending, bytearray]]:
        found = {}
        for peer in peers:
            into = bytearray(ANSWER_BYTES)
            found[peer] = self._link.irecv(peer, _TAG + number, memoryview(into)), into
        return found

    def _send(self, peer: int, number: int, message: bytes) -> None:
        self._sends.append(self._link.isend(peer, _TAG + number, memoryview(message)))

    def _step(
        self,
        peer: int,
        phase: int,
        expected: dict[int, tuple[Pending, bytearray]],
        reply: Callable[[bytes], bytes | None],
    ) -> None:
        """Wait for a peer's message and send what it leads to; the peer is shut out if it leads nowhere."""
        link, result = self._link, self._result
        if peer in result.shut or peer in result.shut_by:
            return
        until_s = self._began_s + link.deadline_s * (_FIRST + (1 - _FIRST) * phase / _PHASES)
        pending, into = expected.pop(peer)
        try:
            arrived = bytes(into[: pending.wait(max(0.0, until_s - link.now()))])
            if arrived == _REFUSAL:
                result.shut_by.add(peer)
                result.shut[peer] = "does not let this rank in, and says why in its own output"
                return
            message = reply(arrived)
            if message is not None:
                self._send(peer, phase, message)
        except PeerLost as error:
            result.shut[peer] = f"is gone: {error}"
        except PeerTimeout:
            with contextlib.suppress(PeerError):
                pending.cancel()
            result.shut[peer] = (
                f"did not answer message {phase} of the handshake in time; it hangs, or was started "
                f"with --secure off"
            )
        except (ProtocolError, FrameError) as error:
            result.shut[peer] = str(error).removeprefix(f"rank {peer} ")
            if phase < _PHASES:
                self._send(peer, phase, _REFUSAL)

    def _finish(self, *waiting: dict[int, tuple[Pending, bytearray]]) -> None:
        """See that what was sent has left, and take back what nobody will fill."""
        for expected in waiting:
            for pending, _ in expected.values():
                with contextlib.suppress(PeerError):
                    pending.cancel()
        for send in self._sends:
            try:
                send.wait(max(0.0, self._began_s + self._link.deadline_s - self._link.now()))
            except PeerError:
                send.cancel()
