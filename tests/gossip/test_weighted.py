"""The weight before a packet: written, read, and refused where it cannot be one."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import FrameError
from pydec.gossip.weighted import PREFIX_BYTES, read_weight, write_weight


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 2.0**40])
def test_what_is_written_is_read(weight: float) -> None:
    packet = np.full(40, 0xAB, np.uint8)
    write_weight(packet, weight)
    assert read_weight(packet, 0.0, 2.0**40) == weight
    assert (packet[PREFIX_BYTES:] == 0xAB).all()


def test_a_short_packet_bits_in_the_filling_and_a_weight_out_of_range_are_refused() -> None:
    packet = np.zeros(40, np.uint8)
    write_weight(packet, 3.0)
    with pytest.raises(FrameError, match=r"weight must be in \[0, 2\], got 3.0"):
        read_weight(packet, 0.0, 2.0)
    with pytest.raises(FrameError, match="starts with a float64 weight and 8 zero bytes"):
        read_weight(packet[: PREFIX_BYTES - 1], 0.0, 4.0)
    packet[9] = 1
    with pytest.raises(FrameError, match="8 zero bytes"):
        read_weight(packet, 0.0, 4.0)
