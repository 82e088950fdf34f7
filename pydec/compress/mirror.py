"""A payload on a GPU, whose first bytes are in host memory, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pydec.compress.wire import Bytes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Mirror:
    """Bytes that a GPU encodes or decodes, and a header that the host writes or reads.

    Args:
        head: the first bytes, or more, in host memory.
        body: all bytes, uint8 on the GPU. Of what is encoded here, the bytes of the header are
            copied to it from ``head`` afterwards.
    """

    head: Bytes
    body: torch.Tensor

    @property
    def size(self) -> int:
        """Bytes of all."""
        return len(self.body)

    def __getitem__(self, span: slice) -> Mirror:
        """A part of both."""
        return Mirror(self.head[span], self.body[span])

    def fetch(self) -> Bytes:
        """All bytes as a new array; waits for the GPU."""
        return np.array(self.body.cpu().numpy())


def head_of(payload: Any) -> Bytes:
    """What the host can see of a payload: the header of one on a GPU, all of another one."""
    head: Bytes = payload.head if isinstance(payload, Mirror) else payload
    return head
