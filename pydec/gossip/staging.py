"""Payloads between a GPU and MPI: through pinned host memory, unless the MPI takes GPU memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.gossip.place import Place

if TYPE_CHECKING:
    import torch

HEAD_BYTES = 128
"""What is looked at of a message that arrived on a GPU: more than any headers."""


class Staging:
    """Room for one payload that leaves or arrives; made once, used every round.

    A payload leaves in two steps: ``leave`` queues the copy behind the kernels that write it, and once
    ``settled`` says so, MPI may send what ``leave`` returned. It arrives in two: MPI receives into ``room``,
    then ``arrive`` queues the copy before the kernels that read it. The room is free for the next payload
    when it is settled again.

    Args:
        n_bytes: of the largest payload.
        place: the GPU.
        direct: the MPI takes GPU memory (``comm.gpu.takes_gpu_memory``): no copies; the room is on the GPU.
    """

    def __init__(self, n_bytes: int, place: Place, *, direct: bool) -> None:
        import torch

        self.direct = direct
        self._place = place
        self._room = place.zeros(n_bytes, torch.uint8) if direct else place.pinned(n_bytes)
        self._head = place.pinned(min(n_bytes, HEAD_BYTES)) if direct else self._room
        self._event = place.event()

    @property
    def nbytes(self) -> int:
        """Bytes of the room."""
        return self._room.nbytes

    def leave(self, payload: torch.Tensor) -> torch.Tensor:
        """What to send: uint8, of the payload's length; MPI may read it once it is settled.

        Args:
            payload: uint8, contiguous, on the GPU.
        """
        sent = payload
        if not self.direct:
            sent = self.room(payload.numel())
            self._place.down(sent, payload)
        self.mark()
        return sent

    def room(self, n_bytes: int) -> torch.Tensor:
        """Where to receive a payload of ``n_bytes``.

        Raises:
            ConfigError: it is larger than the room.
        """
        if n_bytes > self._room.numel():
            raise ConfigError(
                f"a payload of {n_bytes} bytes does not fit in the {self._room.numel()} bytes staged"
            )
        return self._room[:n_bytes]

    def head(self, n_bytes: int) -> NDArray[np.uint8]:
        """The received payload of ``n_bytes`` as far as the host can see it: all, or its first 128 bytes.

        Those of a room on the GPU are fetched, and waited for.
        """
        seen = self._head[:n_bytes]
        if self.direct:
            self._place.down(seen, self._room[: len(seen)])
            self.mark()
            self.wait()
        return seen.numpy()

    @property
    def shown(self) -> NDArray[np.uint8]:
        """What ``head`` gave, of any length."""
        return self._head.numpy()

    def arrive(self, out: torch.Tensor) -> torch.Tensor:
        """The received payload of ``out``'s length, on the GPU: in ``out``, or in the room itself."""
        received = self.room(out.numel())
        if self.direct:
            return received
        self._place.up(out, received)
        self.mark()
        return out

    def message(self, tensor: torch.Tensor) -> Any:
        """What ``leave`` returned, or a room, as the transport takes it."""
        return self._place.message(tensor) if self.direct else memoryview(tensor.numpy())

    def settled(self) -> bool:
        """Whether the last copy is done; does not wait."""
        return self._event.done()

    def wait(self) -> None:
        """Wait for the last copy."""
        self._event.wait()

    def mark(self) -> None:
        """What was queued before has to be done before the room is free: it may read the room."""
        self._event.record()
