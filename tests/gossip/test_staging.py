"""Payloads go through staging unchanged; what is larger than the room is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.gossip.place import Place
from pydec.gossip.staging import Staging

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("direct", [False, True])
def test_a_payload_leaves_and_arrives(direct):
    payload = torch.randint(0, 256, (1000,), dtype=torch.uint8, device=DEVICE)
    sender, receiver = (Staging(1024, Place(payload.device), direct=direct) for _ in range(2))
    sent = sender.leave(payload)
    sender.wait()
    assert sender.settled()
    assert (sent.data_ptr() == payload.data_ptr()) is direct
    receiver.room(1000).copy_(sent)  # as MPI does
    head = receiver.head(1000)
    np.testing.assert_array_equal(head, payload.cpu().numpy()[: len(head)])
    assert len(head) == (128 if direct else 1000)
    arrived = receiver.arrive(torch.zeros_like(payload))
    receiver.wait()
    assert arrived.device == payload.device
    assert torch.equal(arrived, payload)


def test_a_payload_that_does_not_fit_is_refused():
    staging = Staging(8, Place(torch.device(DEVICE)), direct=False)
    with pytest.raises(ConfigError, match="payload of 9 bytes does not fit in the 8 bytes staged"):
        staging.room(9)
