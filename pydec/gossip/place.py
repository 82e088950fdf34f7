"""A device as gossip sees it: its memory, pinned memory here, copies between the two, when they are done.

Everything that touches a GPU's memory outside of kernels goes through a ``Place``, so that tests can put
another one in its place on machines without a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


class Event:
    """A point in what a device was given to do; passed at once unless it is a GPU.

    Args:
        device: whose stream, torch's current one, is marked.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        # Copies from memory that is not on a GPU wait by themselves.
        on_gpu = device.type == "cuda"
        self._event: Any = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    def record(self) -> None:
        """The point is now: behind all that was queued before."""
        if self._event is not None:
            import torch

            self._event.record(torch.cuda.current_stream(self._device))

    def done(self) -> bool:
        """Whether the device is past it; does not wait."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> None:
        """Wait until it is."""
        if self._event is not None:
            self._event.synchronize()


class Place:
    """Memory of one device, and the way to it. Copies are queued behind what was queued before.

    Args:
        device: where; one in host memory makes everything wait by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __str__(self) -> str:
        """As torch writes it, ``cuda:0``."""
        return str(self.device)

    def zeros(self, n: int, dtype: torch.dtype) -> Tensor:
        """A vector on the device, as kernels take it."""
        import torch

        return torch.zeros(n, dtype=dtype, device=self.device)

    def seen(self, tensor: Tensor) -> Tensor:
        """A tensor on the device, as kernels take it."""
        return tensor

    def pinned(self, n_bytes: int) -> Tensor:
        """Host memory, uint8, that the device copies from and to while the program runs on."""
        import torch

        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def event(self) -> Event:
        """One that has passed."""
        return Event(self.device)

    def up(self, out: Tensor, source: Tensor) -> None:
        """Queue a copy from pinned memory, which must stay as it is until an event behind it."""
        out.copy_(source, non_blocking=True)

    def down(self, out: Tensor, source: Tensor) -> None:
        """Queue a copy to pinned memory, which may be read behind an event after it."""
        out.copy_(source, non_blocking=True)

    def message(self, tensor: Tensor) -> Any:
        """A tensor on the device, uint8, as a transport that ``takes_gpu_memory`` takes it."""
        return tensor
