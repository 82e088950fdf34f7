"""A round of models that lie on a GPU: they are encoded and mixed there, and only packets leave it.

A packet is written on the GPU, header and all, copied to pinned host memory, and sent when the event behind
the copy has passed; what arrives in pinned memory is copied to the GPU and mixed by kernels queued behind.
Where the MPI takes GPU memory, it sends and receives there, and only headers are looked at in host memory.
Nothing else waits for the GPU, but for one look at each bucket's ``faults``, of compressors whose payloads
can be wrong. The bits are those of ``Exchange`` in host memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from pydec.comm.frames import HEADER_BYTES
from pydec.comm.transport import Transport
from pydec.compress import draw_key
from pydec.compress.base import Bytes
from pydec.compress.gpu import OnGpu
from pydec.compress.mirror import Mirror
from pydec.errors import ConfigError, FrameError
from pydec.gossip.base import Mixer
from pydec.gossip.exchange import Exchange
from pydec.gossip.inbox import Inbox
from pydec.gossip.packets import Packet, malformed
from pydec.gossip.place import Place
from pydec.gossip.staging import HEAD_BYTES, Staging
from pydec.topology.base import Topology
from pydec.trace import span, traced

MOST_MESSAGES = 63
"""Neighbours of a rank: the CUDA kernels sum 64 vectors, the own one among them."""


class GpuInbox(Inbox):
    """Slots in pinned memory, or on the GPU where the MPI takes its memory.

    Args:
        window, degree, slot: see ``Inbox``.
        place: the GPU.
        direct: see ``Staging``.
    """

    def __init__(self, window: int, degree: int, slot: int, place: Place, *, direct: bool) -> None:
        import torch

        self._place, self._direct = place, direct
        super().__init__(window, degree, slot)
        self._header = np.empty(slot, np.uint8)  # of a message on the GPU; what lies behind is never touched
        # One bucket of every neighbour: the next is copied when this one has been mixed.
        self._arrived = place.zeros(0 if direct else degree * slot, torch.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots, here and on the GPU."""
        return sum(staging.nbytes for staging in self._stagings) + self._arrived.nbytes

    def _renew(self) -> None:
        count = self._window * self._degree
        self._stagings = [Staging(self._slot, self._place, direct=self._direct) for _ in range(count)]

    def _staging(self, number: int, place: int) -> Staging:
        return self._stagings[number % self._window * self._degree + place]

    def landing(self, number: int, place: int, n_bytes: int) -> memoryview:
        """As ``Inbox.landing``; waits until what has arrived there before is not needed any more."""
        staging = self._staging(number, place)
        staging.wait()
        return cast(memoryview, staging.message(staging.room(n_bytes)))

    def seen(self, number: int, place: int, arrived: int) -> Bytes:
        """As ``Inbox.seen``."""
        head = self._staging(number, place).head(arrived)
        if len(head) == arrived:
            return head
        self._header[: len(head)] = head
        return self._header[:arrived]

    def body(self, number: int, place: int, arrived: int) -> Any:
        """As ``Inbox.body``, on the GPU once what is queued is done."""
        staging = self._staging(number, place)
        out = self._arrived[place * self._slot :][:arrived] if not self._direct else staging.room(arrived)
        return Mirror(staging.shown[HEADER_BYTES:], staging.arrive(out)[HEADER_BYTES:])

    def release(self, number: int) -> None:
        """The kernels that read packet ``number`` of all neighbours have been queued."""
        for place in range(self._degree if self._direct else 0):
            self._staging(number, place).mark()


class GpuExchange(Exchange):
    """``Exchange`` for vectors on a GPU; same calls, same meaning, same bits.

    Args:
        transport, topology: see ``Exchange``.
        mixers: of tensors on the GPU with compressors of ``compress.gpu``, and ``NumbersMixer``.
        place: the GPU.
        direct: whether the transport takes GPU memory.
        options: see ``Exchange``.

    Raises:
        ConfigError: a rank hears more neighbours than a kernel sums.
        ValueError: at ``run``, ``begin`` or ``finish``, of a vector that the compressor refuses; it has not
            been sent.
    """

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        mixers: Sequence[Mixer],
        *,
        place: Place,
        direct: bool,
        **options: Any,
    ) -> None:
        if topology.degree > MOST_MESSAGES:
            raise ConfigError(
                f"the CUDA kernels sum what {MOST_MESSAGES} neighbours send, and a rank of {topology.name} "
                f"hears {topology.degree} at once; use gossip_device='cpu', or a sparser topology"
            )
        self._place, self._direct = place, direct
        super().__init__(transport, topology, mixers, **options)
        count = len(self._packets)
        self._heads = place.pinned(count * HEAD_BYTES).view(count, HEAD_BYTES)
        room = 0 if direct else self._slot
        self._leaving = {at: Staging(room, place, direct=direct) for at in dict.fromkeys(self._offsets)}
        self._sent: dict[int, Any] = {}  # by packet: what is to be sent, until it is
        self._queued: deque[int] = deque()  # packets whose encoding is queued
        self._verdict = _Verdict(place, max(1, topology.degree))
        self._refused = place.pinned(8 * count)

    def _memory(self, outbox_bytes: int, inbox: tuple[int, int, int]) -> tuple[Any, Inbox]:
        import torch

        outbox = self._place.zeros(outbox_bytes, torch.uint8)
        return outbox, GpuInbox(*inbox, self._place, direct=self._direct)

    @property
    def buffer_bytes(self) -> int:
        """Bytes held beyond the vectors, on the GPU and in pinned memory."""
        return super().buffer_bytes + sum(staging.nbytes for staging in self._leaving.values())

    def begin(self, round: int) -> None:
        """As ``Exchange.begin``; returns when the last packet has left the GPU."""
        super().begin(round)
        self._launch(len(self._packets))

    def run(self, round: int) -> None:
        """As ``Exchange.run``; waits for the GPU at the end where mixing is measured."""
        super().run(round)
        self.moved = float(self.moved)

    def finish(self, *, mix: bool = True) -> None:
        """As ``Exchange.finish``; waits for the GPU at the end where mixing is measured."""
        super().finish(mix=mix)
        self.moved = float(self.moved)

    def _open(self, round: int) -> None:
        super()._open(round)
        self._queued.clear()

    def _send(self, number: int) -> None:
        """Queue the encoding of one packet, and send the one before, so that the GPU always has work."""
        if self._heard or self._listeners:
            self._outlast(self._sends.pop(self._offsets[number], ()))
            self._sent[number] = self._encode(number, self._packets[number])
            self._queued.append(number)
        self._launch(number - 1)

    def _launch(self, newest: int) -> None:
        """Send what is queued, up to that packet; wait for the GPU to have encoded it."""
        while self._queued and self._queued[0] <= newest:
            number = self._queued.popleft()
            offset, mixer = self._offsets[number], self._packets[number].mixer
            staging = self._leaving[offset]
            with span("encode"):
                staging.wait()
            self._admit(number, mixer)
            message = staging.message(self._sent.pop(number))
            tag = self._tag(number)
            with span("send"):
                self._sends[offset] = [self.transport.isend(peer, tag, message) for peer in self._listeners]

    def _admit(self, number: int, mixer: Mixer) -> None:
        compressor: Any = mixer.compressor
        if isinstance(compressor, OnGpu) and (refused := int(self._refusals(number)[0])):
            compressor.refused.zero_()
            raise compressor.refusal(refused)

    def _refusals(self, number: int) -> Any:
        return self._refused[8 * number : 8 * (number + 1)].numpy().view(np.int64)

    def _settle(self, number: int, *, mix: bool = True) -> None:
        self._launch(number + 1)
        super()._settle(number, mix=mix)

    @traced("queue encoding")
    def _encode(self, number: int, packet: Packet, peer: int = -1) -> Any:
        """Queue what writes a packet and takes it to where it is sent from; the message, there."""
        import torch

        mixer, offset, place = packet.mixer, self._offsets[number], self._place
        compressor: Any = mixer.compressor
        slot: Any = self._outbox[offset : offset + HEADER_BYTES + self._capacities[number]]
        head = self._heads[number].numpy()
        key = draw_key(self.seed, self.transport.rank, self.round, number)
        out = cast(Bytes, Mirror(head[HEADER_BYTES:], slot[HEADER_BYTES:]))
        length = mixer.encode(packet.bucket, out, key)
        self._lengths[number] = length
        head[:HEADER_BYTES] = self._headers[number].fill(self.transport.rank, self.round, length)
        written = HEADER_BYTES + mixer.prefix
        if isinstance(compressor, OnGpu):
            written += compressor.head
            place.down(self._refused[8 * number : 8 * (number + 1)], compressor.refused.view(torch.uint8))
        place.up(slot[:written], self._heads[number][:written])
        return self._leaving[offset].leave(slot[: HEADER_BYTES + length])

    def _own(self, number: int) -> Any:
        body = super()._own(number)
        return Mirror(self._heads[number].numpy()[HEADER_BYTES:], cast(Any, body))

    def _absorb(self, number: int, heard: list[int], bodies: list[Bytes]) -> None:
        self._inspect(number, heard, bodies)
        super()._absorb(number, heard, bodies)
        cast(GpuInbox, self._inbox).release(number)

    def _inspect(self, number: int, heard: list[int], bodies: list[Any]) -> None:
        """Refuse payloads that the compressor did not write, before any kernel uses them.

        A forgiving mixer looks by itself, and goes on without them.
        """
        packet = self._packets[number]
        compressor: Any = packet.mixer.compressor
        if packet.mixer.forgiving or not isinstance(compressor, OnGpu):
            return
        start, stop = packet.span
        payloads = [body[packet.mixer.prefix :] for body in bodies]
        try:
            if self._verdict.sound(compressor, payloads, stop - start):
                return
            for payload in payloads:
                compressor.check(payload, stop - start)
        except FrameError as error:
            raise malformed(packet, heard, bodies, f"in round {self.round}", error) from error
        raise AssertionError(f"bucket {number} is wrong on the GPU, and in host memory it is not")


class _Verdict:
    """Whether payloads that arrived are well formed, in one number for each.

    Args:
        place: the GPU.
        most: payloads at a time.
    """

    def __init__(self, place: Place, most: int) -> None:
        import torch

        self._place, self._event = place, place.event()
        self._faults = place.zeros(most, torch.int64)
        self._found = place.pinned(8 * most)

    def sound(self, compressor: OnGpu[Any], payloads: Sequence[Mirror], n: int) -> bool:
        """Whether all are; waits for the GPU if bodies can be wrong.

        Raises:
            FrameError: a header is wrong.
        """
        import torch

        self._faults.zero_()
        wrong = [compressor.inspect(p, n, self._faults[k : k + 1]) for k, p in enumerate(payloads)]
        if not any(wrong):
            return True
        self._place.down(self._found, self._faults.view(torch.uint8))
        self._event.record()
        self._event.wait()
        return not self._found.numpy().any()
