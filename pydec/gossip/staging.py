"""Payloads between a GPU and MPI: through pinned host memory, unless the MPI takes GPU memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError

if TYPE_CHECKING:
    import torch


class Staging:
    """Room for one payload that leaves or arrives; made once, used every round.

    A payload leaves in two steps: ``leave`` queues the copy behind the kernels that write it, and once
    ``settled`` says so, MPI may send what ``leave`` returned. It arrives in two: MPI receives into ``room``,
    then ``arrive`` queues the copy before the kernels that read it. The room is free for the next payload
    when it is settled again.

    Args:
        n_bytes: of the largest payload.
        like: a tensor on the GPU.
        direct: the MPI takes GPU memory (``comm.gpu.takes_gpu_memory``): no copies; the room is on the GPU.
    """

    def __init__(self, n_bytes: int, like: torch.Tensor, *, direct: bool) -> None:
        import torch

        self.direct = direct
        self._device = like.device
        on_gpu = like.device.type == "cuda"
        device = like.device if direct else "cpu"
        self._room = torch.empty(n_bytes, dtype=torch.uint8, device=device, pin_memory=on_gpu and not direct)
        # Copies from memory that is not on a GPU wait by themselves.
        self._event: Any = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def leave(self, payload: torch.Tensor) -> torch.Tensor:
        """What to send: uint8, of the payload's length; MPI may read it once it is settled.

        Args:
            payload: uint8, contiguous, on the GPU.
        """
        sent = payload
        if not self.direct:
            sent = self.room(payload.numel())
            sent.copy_(payload, non_blocking=True)
        self._mark()
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

    def arrive(self, out: torch.Tensor) -> torch.Tensor:
        """The received payload of ``out``'s length, on the GPU: in ``out``, or in the room itself."""
        received = self.room(out.numel())
        if self.direct:
            return received
        out.copy_(received, non_blocking=True)
        self._mark()
        return out

    def settled(self) -> bool:
        """Whether the last copy is done; does not wait."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> None:
        """Wait for the last copy."""
        if self._event is not None:
            self._event.synchronize()

    def _mark(self) -> None:
        if self._event is not None:
            import torch

            self._event.record(
                torch.cuda.current_stream(self._device)
            )  # where torch queues copies of its tensors
