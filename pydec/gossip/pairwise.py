"""Asynchronous averages of two: each takes place on both sides or on none, so the mean is kept.

A rank that starts an average sends its bucket as a request and is engaged until the answer comes; a
rank that is free answers with its own bucket as it is and moves half of the way at once; the first moves by
the same difference when the answer arrives. What local steps have changed meanwhile stays. No lock is
held anywhere:

- A rank that is engaged keeps a request of a lower rank for later and refuses one of a higher rank, which
  then tries another neighbour. Waiting goes from lower ranks to higher ones only, so never in a circle.
- Requests that cross: the higher rank takes back its own and answers; the lower one ignores what it got.

One message is under way in each direction of a link, and is taken before the next is sent: they never
overtake one another. Requests are numbered, so that a doubled one is told apart and a lost one is repeated;
``gossip/requests.py`` says how, for how long, and what a neighbour that is restarted has to expect.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.comm.transport import Transport
from pydec.compress import draw_key
from pydec.errors import FrameError, ProtocolError
from pydec.gossip.asynchronous import Asynchronous
from pydec.gossip.base import Mixer
from pydec.gossip.ending import Ending
from pydec.gossip.packets import Packet, malformed, packets_of
from pydec.gossip.pair_mixer import Momentum, PairMixer
from pydec.gossip.requests import Heard, Request, Word
from pydec.topology.base import Topology
from pydec.trace import span

_OWN = -1  # content of a request; that of an answer is its peer, a refusal has none
_TRIES = 2  # requests per neighbour and step before the rest of a step's averages is left out


class PairwiseExchange(Asynchronous):
    """Averages, bucket by bucket, with one random neighbour per local step, and answers whoever asks.

    Args:
        transport: the stream to use; owned by the caller.
        topology: symmetric, the same in every round; only who neighbours whom counts.
        mixers: one per vector; empty vectors are skipped; others than ``PairMixer`` are averaged plainly.
        momentum: of the mixers with a companion.
        epoch: written into every frame.
        seed: with the rank, decides the partners, and with the sequence what compressors draw from.

    Attributes:
        averages: buckets averaged, started here or answered.
        refused: requests that were refused.
    """

    kind: ClassVar[Kind] = Kind.PAIR

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        mixers: Sequence[Mixer],
        *,
        momentum: Momentum | None = None,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        self.mixers = [
            mixer if isinstance(mixer, PairMixer) else PairMixer(mixer.x, mixer.compressor, topology.degree)
            for mixer in mixers
            if mixer.x.size
        ]
        for mixer in self.mixers:
            mixer.momentum = momentum if mixer.tilde.size else None
        self._packets = packets_of(self.mixers)
        self._mixer_of = [mixer for mixer in self.mixers for _ in mixer.buckets]
        rank, neighbours = transport.rank, topology.neighbors(transport.rank, 0)
        longest = max((packet.capacity for packet in self._packets), default=0)
        message_bytes = HEADER_BYTES + max(longest, Ending.note_bytes(transport.size))
        super().__init__(transport, topology, message_bytes, 1 + len(neighbours), epoch=epoch)
        self.seed = seed
        self.averages = self.refused = 0
        self._random = random.Random(f"{seed}/{rank}")
        self._own_slot = self.slots.free.pop()
        self._own_free = True
        self._answers = {peer: self.slots.free.pop() for peer in neighbours}
        self._answering: set[int] = set()
        self._waiting: set[int] = set()
        self._outbox: dict[int, list[tuple[NDArray[np.uint8], int | None]]] = {p: [] for p in neighbours}
        self._drawn = 0
        self._heard = {peer: Heard(peer) for peer in neighbours}
        self._sequence = 0
        self._request: Request | None = None
        self._partner: int | None = None
        self._queue: list[int] = []
        self._tries = 0
        self._frozen = True
        self._steps = 0
        self._step_began_s = self._step_s = 0.0
        self._aged = [0.0] * len(self._packets)

    @property
    def buffer_bytes(self) -> int:
        """Messages, public models and companions."""
        return super().buffer_bytes + sum(mixer.state_bytes for mixer in self.mixers)

    def publish(self) -> None:
        """The public model takes over the local step; an average with a random neighbour may begin."""
        with self.lock:
            self._take_over()
            if not self._queue:
                self._queue = list(range(len(self._packets)))[::-1]  # the first is taken from the end
                self._partner = None
            self._tries = _TRIES * len(self._answers)

    def mix(self) -> None:
        """The model takes over what averages have changed; nothing is averaged until ``publish``."""
        with self.lock:
            self._steps += 1
            now_s = self.transport.now()
            self._step_s = now_s - self._step_began_s
            for packet in self._packets:
                self._age(packet, float(self._steps))
            self._adopt()

    def ending(self, *, mix: bool = True) -> Iterator[None]:
        """As ``Asynchronous.ending``; averages that others have started are still answered."""
        with self.lock:
            if mix and self._frozen:
                self._take_over()
            self._frozen = False
            self._queue.clear()
        yield from super().ending()
        self._frozen = True
        if mix:
            self._adopt()

    def settled(self) -> bool:
        """Whether no answer is awaited."""
        return self._request is None and self._own_free

    def outgoing(self, peer: int) -> tuple[NDArray[np.uint8], int | None] | None:
        """What is ready for the neighbour; a step's first request is encoded here, beside the program."""
        self._initiate()
        self._repeat()
        return self._outbox[peer].pop(0) if self._outbox[peer] else None

    def delivered(self, peer: int, content: int) -> None:
        """The slot of the own request, or of an answer, is free."""
        if content == _OWN:
            self._own_free = True
            if self._request is not None:
                self._request.taken_s = self.transport.now()
            self._initiate()
        else:
            self._answering.discard(content)

    def arrived(self, peer: int, frame: Frame, slot: int) -> int | None:
        """Answer a request, refuse it or keep it for later; take in an answer."""
        word, claim = frame.flags & 3, frame.flags >> 2
        known = word == Word.REQUEST or (word and not claim)
        if frame.kind is not self.kind or frame.bucket >= len(self._packets) or not known:
            raise ProtocolError(
                peer, f"sent a {frame.kind.name} packet with flags {frame.flags}, bucket {frame.bucket} of "
                f"{frame.buckets}; expected {self.kind.name} and {len(self._packets)} buckets"
            )  # fmt: skip
        packet = self._packets[frame.bucket]
        packet.check(frame, peer, frame.round, self.epoch, self.kind)
        if self._frozen:
            return None
        body = self.slots[slot][HEADER_BYTES : HEADER_BYTES + frame.length]
        if word == Word.REQUEST:
            return self._hear_request(peer, frame, packet, body, slot)
        request = self._request
        if request is None or (request.peer, request.sequence, request.number) != (
            peer, frame.round, packet.number,
        ):  # fmt: skip
            self.dropped += 1
            return slot
        self._request = None
        if word == Word.ANSWER:
            own = self.slots[self._own_slot][HEADER_BYTES : request.length]
            self._age(packet, self._local_time())
            self._average(packet, peer, own, body)
        else:
            self.refused += 1
            self._queue.append(packet.number)
            self._partner = None
        self._initiate()
        return slot

    def lost(self, peer: int) -> None:
        """An average with a neighbour that is gone never ends."""
        self._outbox[peer].clear()
        self._answering.discard(peer)
        self._waiting.discard(peer)
        if self._partner == peer:
            self._partner = None
        if self._request is not None and self._request.peer == peer:
            self._request, self._own_free = None, True
            self._initiate()

    # One average.

    def _hear_request(
        self, peer: int, frame: Frame, packet: Packet, body: NDArray[np.uint8], slot: int
    ) -> int | None:
        heard = self._heard[peer]
        if not heard.is_new(frame.round, body):
            self.dropped += 1
            if frame.round == heard.sequence:
                self._say_again(peer, packet, heard)
            return slot
        request = self._request
        if request is not None and request.peer != peer and peer < self.transport.rank:
            self._waiting.add(peer)
            return None
        if peer in self._answering:
            return None  # taken, as the new request shows, and about to be noticed
        heard.take(frame.round, body)
        self._waiting.discard(peer)
        if request is None:
            self._answer(peer, frame.round, packet, body)
            self._initiate()
        elif request.peer != peer or request.is_claimed(frame.flags >> 2):
            self._refuse(peer, frame.round, packet)
        elif peer < self.transport.rank:  # crossed; else the peer takes back what it asked
            self._take_back(request)
            self._answer(peer, frame.round, packet, body)
            self._initiate()
        return slot

    def _answer(self, peer: int, sequence: int, packet: Packet, body: NDArray[np.uint8]) -> None:
        self._age(packet, self._local_time())
        slot = self._answers[peer]
        message = self._write(slot, packet, Word.ANSWER, sequence)
        self._average(packet, peer, message[HEADER_BYTES:], body)
        self._heard[peer].answer = message
        self._answering.add(peer)
        self._outbox[peer].append((message, peer))

    def _refuse(self, peer: int, sequence: int, packet: Packet) -> None:
        refusal = np.empty(HEADER_BYTES, np.uint8)
        self._label(refusal, packet, Word.REFUSAL, sequence, 0)
        self._outbox[peer].append((refusal, None))

    def _say_again(self, peer: int, packet: Packet, heard: Heard) -> None:
        """The neighbour's newest request came again: perhaps what it was told was lost."""
        if heard.answer is None:
            self._refuse(peer, heard.sequence, packet)
        elif peer not in self._answering:
            self._answering.add(peer)
            self._outbox[peer].append((heard.answer, peer))

    def _repeat(self) -> None:
        """Send the own request again if it was taken long ago."""
        request = self._request
        if request is not None and request.due(self.transport.now(), self.transport.deadline_s):
            self._own_free = False
            message = self.slots[self._own_slot][: request.length]
            self._outbox[request.peer].append((message, _OWN))

    def _initiate(self) -> None:
        """Ask the next neighbour, if this rank is free to."""
        engaged = self._request is not None or not self._own_free
        if self._frozen or self._ending or engaged or self._waiting or not self._queue:
            return  # whoever waits for this rank comes first
        if self._partner is None:
            living = [peer for peer in self._answers if peer not in self.gone]
            if not living or not self._tries:
                self._queue.clear()
                return
            self._tries -= 1
            self._partner = self._random.choice(living)
        packet = self._packets[self._queue.pop()]
        self._sequence += 1
        self._age(packet, self._local_time())
        flags = Word.REQUEST | self._heard[self._partner].claim << 2
        message = self._write(self._own_slot, packet, flags, self._sequence)
        self._request = Request(self._partner, packet.number, self._sequence, message.size)
        self._own_free = False
        self._outbox[self._partner].append((message, _OWN))

    def _take_back(self, request: Request) -> None:
        outbox = self._outbox[request.peer]
        kept = [entry for entry in outbox if entry[1] != _OWN]
        if len(kept) < len(outbox):  # never sent
            outbox[:] = kept
            self._own_free = True
        self._request = None

    def _average(self, packet: Packet, peer: int, own: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
        try:
            with span(packet.absorbing):
                packet.mixer.absorb(packet.bucket, own, [theirs], [0.5])
        except FrameError as error:
            raise malformed(packet, [peer], [theirs], "in an average of two", error) from error
        self.averages += 1

    def _write(self, slot: int, packet: Packet, flags: int, sequence: int) -> NDArray[np.uint8]:
        """The public model's bucket as a message in that slot."""
        memory = self.slots[slot]
        self._drawn += 1
        key = draw_key(self.seed, self.transport.rank, self._drawn, packet.number)
        body = memory[HEADER_BYTES : HEADER_BYTES + packet.capacity]
        with span("encode"):
            length = packet.mixer.encode(packet.bucket, body, key)
        self._label(memory, packet, flags, sequence, length)
        return memory[: HEADER_BYTES + length]

    def _label(
        self, memory: NDArray[np.uint8], packet: Packet, flags: int, sequence: int, length: int
    ) -> None:
        frame = packet.frame(self.kind, self.epoch, self.transport.rank)
        pack_into(memory, replace(frame, flags=flags, round=sequence, length=length))

    # Time and the model, as the local steps see them.

    def _local_time(self) -> float:
        """Local steps taken, and the part of the present one that is over, as far as the last one tells."""
        if self._step_s <= 0.0:
            return float(self._steps)
        part = (self.transport.now() - self._step_began_s) / self._step_s
        return self._steps + min(part, 1.0)

    def _age(self, packet: Packet, time: float) -> None:
        self._mixer_of[packet.number].age(packet.bucket, time - self._aged[packet.number])
        self._aged[packet.number] = max(time, self._aged[packet.number])

    def _take_over(self) -> None:
        for mixer in self.mixers:
            mixer.publish()
        self._step_began_s = self.transport.now()
        self._frozen = False

    def _adopt(self) -> None:
        for mixer in self.mixers:
            np.copyto(mixer.x, mixer.public)
        self._frozen = True
