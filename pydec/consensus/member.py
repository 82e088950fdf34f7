"""Which node a replica is."""

from __future__ import annotations

from dataclasses import dataclass

from pydec.consensus.certificate import Verify
from pydec.consensus.signed import Signer
from pydec.crypto.signing import verify


@dataclass(frozen=True)
class Member:
    """Who this node is.

    Args:
        chain_id: 32 bytes, the hash of the genesis.
        node_id: its identity, 32 bytes.
        signer: holds the key that the table names for it; None only follows.
        verify: of signatures; another one only in simulations.
    """

    chain_id: bytes
    node_id: bytes
    signer: Signer | None
    verify: Verify = verify
