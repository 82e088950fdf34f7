"""The steps to a running ledger: keys that are proved, one chain on all ranks, and a node on each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydec.consensus.file_storage import create
from pydec.consensus.genesis import Genesis
from pydec.consensus.node import founders, open_node
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.transactions import NO_DIGEST
from pydec.crypto.hashing import DIGEST_BYTES
from pydec.crypto.signing import KEY_BYTES, SIGNATURE_BYTES, verify
from pydec.errors import ConfigError, SignatureError
from pydec.train.admission import Admission
from pydec.train.ledger import RunLedger
from pydec.train.roster import fresh_ranks
from pydec.train.sealing import check_sealed, node_of
from pydec.train.together import Member, everyone, text

_HELLO = b"pydec.train.key.v1"


class Opening:
    """The steps to a running ledger; those that talk to the others are apart, so that all fail together.

    Args:
        peer: this rank.
        base: directory of all ranks' nodes; ``rank-N`` in it is this one's.
        puzzle: what entry by work asks for, if the chain is made now; "" for SHA-256, or for what is there.
        roles: by rank, of those that are new to the chain.

    Raises:
        ConfigError, SetupError, LedgerError: the key or the genesis there cannot be used.
    """

    def __init__(
        self, peer: Member, base: Path, puzzle: str = "", roles: Mapping[int, Role] | None = None
    ) -> None:
        self._peer, self._puzzle, self._roles = peer, puzzle, roles or {}
        self._keys: list[bytes] = []
        self._fresh: frozenset[int] = frozenset()
        self.directory, self.key, self.genesis = node_of(base, peer.rank)
        if self.genesis is not None and puzzle not in ("", self.genesis.rules.puzzle):
            raise ConfigError(
                f"--puzzle {puzzle}: the ledger in {base} was made with {self.genesis.rules.puzzle}, which "
                "its genesis fixes; leave the option out, or use a new directory"
            )

    def meet(self) -> None:
        """Exchange keys, each proved, and agree on the chain; all ranks together, all raise alike.

        Raises:
            ConfigError: the directories are not of one chain.
        """
        peer = self._peer
        nonce = bytes.fromhex(text(peer, os.urandom(DIGEST_BYTES).hex()))
        chain = NO_DIGEST if self.genesis is None else self.genesis.chain_id
        public = self.key.public
        proof = self.key.sign(_claim(nonce, peer.rank, peer.size, public, chain))
        keys, chains = [], []
        for rank, told in enumerate(everyone(peer, public + chain + proof)):
            public, chain, proof = told[:KEY_BYTES], told[KEY_BYTES:-SIGNATURE_BYTES], told[-SIGNATURE_BYTES:]
            try:
                verify(public, _claim(nonce, rank, peer.size, public, chain), proof)
            except SignatureError as error:
                raise ConfigError(f"rank {rank} does not prove its key: {error}") from None
            check_sealed(peer.transport, rank, public)
            keys.append(public)
            chains.append(chain)
        knows = [rank for rank, chain in enumerate(chains) if chain != NO_DIGEST]
        for rank in knows:
            first, other = chains[knows[0]].hex()[:16], chains[rank].hex()[:16]
            if other != first:
                raise ConfigError(
                    f"--ledger: rank {knows[0]} has chain {first}, rank {rank} has chain {other}; "
                    "use the directories of one run on all ranks, or a new one"
                )
        if len(set(keys)) < len(keys) or not knows:  # it refuses two ranks with one key
            rules = Rules(puzzle=self._puzzle) if self._puzzle else None
            self.genesis = founders(f"train {nonce.hex()[:32]}", keys, rules, self._roles)
        elif len(knows) < peer.size:  # newcomers take the chain that those who prove their keys are on
            mine = self.genesis.encode().hex() if self.genesis is not None else ""
            self.genesis = Genesis.decode(bytes.fromhex(text(peer, mine, knows[0])))
        self._keys, self._fresh = keys, fresh_ranks(chains)

    def open(self, timeout_s: float) -> RunLedger:
        """Start this rank's node.

        Raises:
            LedgerError: its files cannot be used.
        """
        assert self.genesis is not None
        create(self.directory, self.genesis)
        driver = open_node(self._peer.transport, self.directory, self.key)
        role = self._roles.get(self._peer.rank)
        admission = Admission(self._peer, self._keys, driver)
        return RunLedger(
            self._peer, self.key, self.directory, driver, timeout_s, admission, self._fresh, role
        )


def _claim(nonce: bytes, rank: int, size: int, public: bytes, chain: bytes) -> bytes:
    return b"".join((_HELLO, nonce, rank.to_bytes(4, "big"), size.to_bytes(4, "big"), public, chain))
