"""Joining by a snapshot: the chain of epochs, the state at a certified height, then blocks from there on.

    newcomer            one of those that claim to be ahead
    ASK epoch e     ->
                    <-  STEP e, STEP e+1, ...   each certified by the table that the one before announced
                    <-  OFFER                   a block that the last table certified; digests of its state
    ASK_PIECES      ->
                    <-  PIECE, PIECE, ...       each checked against its digest as it comes

A pinned height on the way is shown by a PROOF (ASK_PROOF). The digests have the block's ``state_root`` as
their root, so everything is checked when it comes, whoever sends it: who sends what does not follow is
reported by name, who sends nothing new three times is left out, neither is asked again in this attempt, and
what was verified before stays. No claim is believed: blocks are replayed meanwhile, until an offer has proved
itself.
"""

from __future__ import annotations

from pydec.codec.wire import blob
from pydec.consensus import handover, offers
from pydec.consensus.block import Header
from pydec.consensus.catchup import MOST_CLAIMS
from pydec.consensus.effects import Effect, Install, Report, Send
from pydec.consensus.light import LightClient, decode_step
from pydec.consensus.offers import Ask, AskPieces, AskProof, Message, Offer, Piece, Proof, Step
from pydec.consensus.replica import Replica
from pydec.consensus.state.chain import ChainState
from pydec.crypto.hashing import sha256
from pydec.errors import FrameError, LedgerError

FAR = 4 * handover.SPACING  # behind the others by so many heights, a snapshot is fetched
_STUCK = 16  # base times without a new height while somebody is ahead, and a snapshot is fetched as well
_PATIENCE, _PATIENCE_S = 2, 1.0  # for an answer: base times, and seconds at least, for 1 MiB on a slow link
_REST = 40  # base times between an attempt that came to nothing and the next
_IDLE_ASKS = 3  # requests of one node in a row that may bring nothing new
_MOST_STEP_BYTES = 1 << 26  # of one attempt: keys of the past can sign any number of epochs


class Newcomer:
    """One node's way to a snapshot; no I/O.

    Args:
        replica: of this node; what it claims to have heard is where offers are looked for.
        pins: block hashes by height that the chain must have, see ``LightClient``.
    """

    def __init__(self, replica: Replica, pins: dict[int, bytes] | None = None) -> None:
        self._replica, self._pins = replica, pins
        self._chain_id = replica.member.chain_id
        self._ahead: dict[bytes, int] = {}  # by node, the height that it claims to have decided
        self._tried: set[bytes] = set()
        self._light: LightClient | None = None
        self._source: bytes | None = None
        self._offer: Offer | None = None
        self._steps: list[tuple[int, bytes]] = []
        self._n_step_bytes = 0
        self._pieces: dict[int, bytes] = {}
        self._until_s = self._rest_s = 0.0
        self._asks = 0
        self._asked_until = 0  # pieces before it were asked for
        self._seen = (-1, 0.0)  # height, and when it was reached
        self._done: list[Effect] = []

    def __len__(self) -> int:
        """Entries in memory; the pieces are at most those of one state that a quorum certified."""
        return len(self._ahead) + len(self._tried) + len(self._steps) + len(self._pieces)

    @property
    def active(self) -> bool:
        """Whether an attempt is under way."""
        return self._light is not None

    def tick(self, now_s: float) -> list[Effect]:
        """Begin, or go on with another node, where it is time to."""
        height = self._replica.state.height
        if height != self._seen[0]:
            self._seen = height, now_s
            self._ahead = {node: decided for node, decided in self._ahead.items() if decided > height}
        for node, decided in self._replica.follow.claims.items():
            if node in self._ahead or len(self._ahead) < MOST_CLAIMS:
                self._ahead[node] = decided
        if self._light is None:
            if self._wanted(now_s):
                self._begin(now_s)
        elif self._offer is not None and self._offer.height <= height:
            self._end(now_s)  # the blocks have come by themselves
        elif now_s >= self._until_s:
            self._ask(now_s)  # the request or its answer was lost, for all that is known
        return self._drain()

    def receive(self, now_s: float, sender: bytes, message: Step | Proof | Offer | Piece) -> list[Effect]:
        """An answer; what nobody asked for is dropped."""
        if sender != self._source or self._light is None:
            return []
        try:
            if isinstance(message, Step):
                self._on_step(now_s, message)
            elif isinstance(message, Proof):
                self._on_proof(now_s, message)
            elif isinstance(message, Offer):
                self._on_offer(now_s, message)
            else:
                self._on_piece(now_s, message)
        except (LedgerError, FrameError) as error:
            self._done.append(Report(sender, f"a snapshot that cannot be: {error}"))
            self._next(now_s)
        return self._drain()

    # ---------------------------------------------------------------- whom to ask

    def _sources(self) -> list[bytes]:
        return [node for node in self._ahead if node not in self._tried]

    def _wanted(self, now_s: float) -> bool:
        if not self._ahead or now_s < self._rest_s:
            return False
        here, top = self._replica.state.height, max(self._ahead.values())
        stuck = top > here and now_s - self._seen[1] > _STUCK * self._replica.pace.base_s
        return top >= here + FAR or stuck

    def _begin(self, now_s: float) -> None:
        replica = self._replica
        state, head = replica.state, replica.head[0]
        self._light = LightClient.after(state, head, self._chain_id, self._pins, replica.verifier)
        self._next(now_s)

    def _end(self, now_s: float) -> None:
        self._light = self._source = self._offer = None
        for node in self._tried:
            self._ahead.pop(node, None)  # until it says again that it is ahead
        self._replica.follow.paused = False
        self._tried.clear()
        self._steps.clear()
        self._pieces.clear()
        self._n_step_bytes = 0
        self._rest_s = now_s + _REST * self._replica.pace.base_s

    def _next(self, now_s: float) -> None:
        """Another node, the first one, or nobody is left."""
        if self._source is not None:
            self._tried.add(self._source)
        self._source, self._asks = next(iter(self._sources()), None), 0
        if self._source is None:
            self._end(now_s)
        else:
            self._ask(now_s)

    def _ask(self, now_s: float, message: Message | None = None) -> None:
        """Ask for what is missing."""
        assert self._light is not None
        assert self._source is not None
        if message is None and self._offer is None:
            message = Ask(self._light.table.epoch + 1)
        elif message is None:
            assert self._offer is not None
            message = AskPieces(self._offer.height, first := self._missing())
            self._asked_until = first + handover.AT_ONCE
        self._until_s = now_s + self._patience_s()
        self._asks += 1
        if self._asks > _IDLE_ASKS:
            self._next(now_s)
        else:
            self._done.append(Send(self._source, offers.encode(message, self._chain_id)))

    def _patience_s(self) -> float:
        return max(_PATIENCE_S, _PATIENCE * self._replica.pace.base_s)

    def _advanced(self, now_s: float) -> None:
        self._asks = 0
        self._until_s = now_s + self._patience_s()

    # ---------------------------------------------------------------- what comes

    def _on_step(self, now_s: float, message: Step) -> None:
        light, step = self._light, decode_step(message.data)
        assert light is not None
        if step.table.epoch != light.table.epoch + 1 or self._offer is not None:
            return  # the network lost one or doubled it
        if self._shown(now_s, step.header.height):
            light.follow([step])
            self._steps.append((step.table.epoch, message.data))
            self._n_step_bytes += len(message.data)
            if self._n_step_bytes > _MOST_STEP_BYTES:
                self._end(now_s)  # and replays the blocks, or tries the others later
            else:
                self._advanced(now_s)

    def _shown(self, now_s: float, height: int) -> bool:
        """Whether all pinned blocks before a height were shown; asks for one if not."""
        assert self._light is not None
        pin = self._light.next_pin
        if pin is None or pin >= height:
            return True
        self._ask(now_s, AskProof(pin))
        return False

    def _on_proof(self, now_s: float, message: Proof) -> None:
        assert self._light is not None
        if message.header.height == self._light.next_pin and self._offer is None:
            self._light.head_at(message.header, message.commit)
            self._advanced(now_s)
            self._ask(now_s)

    def _on_offer(self, now_s: float, offer: Offer) -> None:
        light, header = self._light, offer.proof.header
        assert light is not None
        claimed = self._ahead.get(self._source or b"", 0) - handover.KEPT * handover.SPACING
        if header.height < light.height or header.height <= max(self._replica.state.height, claimed):
            self._next(now_s)  # it is behind, or offers an older state than it must have: no lie, and no use
        elif header.epoch > light.table.epoch or self._unknown(header):
            self._offer, self._replica.follow.paused = None, False
            self._ask(now_s)  # steps are missing
        elif self._shown(now_s, header.height):
            light.certify(header, offer.proof.commit)
            if not self._rooted(offer):
                raise LedgerError(f"height {header.height}: the digests are not those of the block's state")
            if self._offer is None or self._offer.height != offer.height:
                self._offer, self._pieces = offer, {}
                self._replica.follow.paused = True
                self._advanced(now_s)
            self._ask(now_s)

    def _rooted(self, offer: Offer) -> bool:
        """Whether the digests are those of the block's state."""
        return offer.manifest.root() == offer.proof.header.state_root

    def _unknown(self, header: Header) -> bool:
        """Whether a block begins an epoch whose step has not come."""
        assert self._light is not None
        return (
            header.height > self._light.height and header.next_validators_hash != self._light.table.digest()
        )

    def _missing(self) -> int:
        assert self._offer is not None
        return next(n for n in range(len(self._offer.manifest.pieces)) if n not in self._pieces)

    def _on_piece(self, now_s: float, piece: Piece) -> None:
        offer = self._offer
        if offer is None or piece.height != offer.height:
            return
        digests = offer.manifest.pieces
        if piece.number >= len(digests) or sha256(piece.data) != digests[piece.number]:
            raise LedgerError(f"height {offer.height}: piece {piece.number} is not the one of the state")
        if piece.number in self._pieces:
            return
        self._pieces[piece.number] = piece.data
        self._advanced(now_s)
        if len(self._pieces) == len(digests):
            self._install(now_s, offer)
        elif self._missing() >= self._asked_until:
            self._ask(now_s)

    def _install(self, now_s: float, offer: Offer) -> None:
        assert self._light is not None
        data = b"".join(self._pieces[number] for number in range(len(self._pieces)))
        try:
            state = self._light.state(data)
        except LedgerError as error:  # those that certified it are to blame, and nobody who sent it
            self._done.append(Report(self._replica.member.node_id, f"a quorum certified no state: {error}"))
            self._end(now_s)
            return
        header, commit = offer.proof.header, offer.proof.commit
        record = blob(header.encode()) + blob(commit.encode()) + blob(data)
        voted = voted_until(state, commit.signers(), self._replica.member.node_id)
        self._done.append(Install(record, tuple(self._steps), header, commit, state, voted))
        self._end(now_s)

    def _drain(self) -> list[Effect]:
        done, self._done = self._done, []
        return done


def voted_until(state: ChainState, signers: list[int], node: bytes) -> int:
    """The newest height that a chain shows a node's COMMIT of, 0 if there is none.

    Args:
        state: after the last block.
        signers: of that block's certificate, by index.
        node: its id.
    """
    if state.decided_by.index(node) in signers:
        return state.height
    for presence in state.presence:
        if presence.node_id == node and presence.signed:
            newest = (presence.signed & -presence.signed).bit_length() - 1
            return state.height - 1 - newest
    return 0
