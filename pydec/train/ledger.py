"""A training run on the ledger: who takes part, with which configuration and data, which models came out.

Every rank keeps a node in ``DIR/rank-N`` with a key of its own. The first run makes the chain: its genesis
are the ranks' keys, each proved by a signature over a nonce that rank 0 has just drawn. Later runs go on with
it, also with other ranks (see ``roster``). Training never waits for it: what is submitted on the way is
awaited at the end.

A checkpoint and the end of a run count once a quorum of the ranks has signed the digest of the averaged
model, which each has computed from its own copy.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pydec.comm.living import living
from pydec.consensus.attestation import Attestation, attest, collect, verify_share
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.file_storage import create
from pydec.consensus.genesis import Genesis
from pydec.consensus.node import founders, open_node
from pydec.consensus.options import OPTIONS
from pydec.consensus.rules import Rules
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import (
    NO_DIGEST,
    Attested,
    Begin,
    Body,
    Checkpoint,
    Config,
    Dataset,
    End,
    prove,
    sign,
    statement,
)
from pydec.consensus.validators import ValidatorTable
from pydec.crypto.hashing import DIGEST_BYTES, bytes_root, file_root, sha256
from pydec.crypto.signing import KEY_BYTES, SIGNATURE_BYTES, SigningKey, verify
from pydec.errors import ConfigError, LedgerError, PeerError, SignatureError, Stopped, TransactionError
from pydec.optim.optimizer import DecentralizedOptimizer
from pydec.train.checkpoint_vault import SEALED, Vault, seal_model
from pydec.train.membership import Membership, Minority
from pydec.train.roster import PART_S, Roster, fresh_ranks
from pydec.train.rundir import RunDir
from pydec.train.sealing import check_sealed, node_of
from pydec.train.together import Member, speaks, table, text

_HELLO = b"pydec.train.key.v1"
_NAME_CHARACTERS = 64


class RunLedger:
    """One rank's part of a run's ledger; made by ``Opening.open``. Rank 0 speaks for the run.

    Args:
        peer: this rank.
        key: of this rank.
        driver: running.
        timeout_s: how long to wait for commits at the start and the end.
        keys, fresh: see ``Roster``.

    Attributes:
        uncertified: rounds whose model the ranks did not agree on, so that no quorum signed.
    """

    def __init__(
        self,
        peer: Member,
        key: SigningKey,
        driver: Driver,
        timeout_s: float,
        keys: Sequence[bytes],
        fresh: frozenset[int],
    ) -> None:
        self.driver = driver
        self._roster = Roster(peer, key, keys, fresh, driver, self._level, timeout_s)
        self.uncertified: list[int] = []
        self._peer, self._key, self._timeout_s = peer, key, timeout_s
        self._run_id = NO_DIGEST
        self._futures: list[Future[Receipt]] = []
        self._submitted = 0
        self._membership: Membership | None = None

    def follow(self, optimizer: DecentralizedOptimizer) -> None:
        """From now on the optimiser's members are the ledger's; see ``Membership``."""
        self._membership = Membership(self._peer, self.driver, optimizer, self._timeout_s)

    def enter(self) -> None:
        """Make the ledger's members the ranks of this job; all ranks together, see ``Roster.enter``."""
        self._level()
        self._roster.enter()

    def part(self, ranks: int) -> None:
        """Have the ranks from ``ranks`` on leave the ledger before the job ends; all ranks together.

        Who is dead is evicted first: those who go on may be no quorum without the leavers.
        """
        if self._membership is not None:
            self._membership.settle()
        late = self._roster.part(ranks)
        if late and speaks(self._peer):
            who = ", ".join(map(str, late))
            print(
                f"pydec: rank {who} did not leave the ledger within {PART_S:g} s",
                file=sys.stderr,
                flush=True,
            )

    def minority(self, error: BaseException) -> Minority | None:
        """What made a rank stop, or miss another, if it is that: see ``Membership.minority``."""
        may_be = isinstance(error, (PeerError, Stopped))
        return self._membership.minority() if self._membership and may_be else None

    @property
    def state(self) -> ChainState:
        """The newest state."""
        state = self.driver.state
        assert isinstance(state, ChainState)
        return state

    def begin(self, config: bytes, options: Mapping[str, Any], facts: Mapping[str, Any], name: str) -> None:
        """Commit the run's configuration and data; all ranks together, and returns when it is committed.

        Args:
            config: content of ``config.json`` on rank 0; its SHA-256 is committed.
            options: of the run; those that the ledger knows are committed.
            facts: what is known of the data and its split; their digest stands for the data set.
            name: of the data, for people.

        Raises:
            LedgerError: no quorum answers.
        """
        before = self.state.run
        if before.running:  # it was killed: what was certified last is what came of it
            newest = before.checkpoints[-1] if before.checkpoints else None
            round, root = (newest.round, newest.root) if newest else (0, NO_DIGEST)
            self._certify(lambda epoch, shares: End(epoch, before.run_id, round, root, shares), root)
        drawn = text(self._peer, os.urandom(DIGEST_BYTES).hex())
        self._run_id = sha256(b"pydec.train.run.v1", bytes.fromhex(drawn))
        if self._peer.rank == 0:
            self._settle()
            known, root = dict(self.state.run.options), digest(facts)
            wanted = {name: str(options[name]) for name in OPTIONS if options.get(name)}
            changed = [
                (name, v) for name, v in wanted.items() if known.get(name) != v and OPTIONS[name][0](v)
            ]
            self._say(Begin(self._run_id, sha256(config)))
            if changed:
                self._say(Config(tuple(sorted(changed))))
            if root not in self.state.datasets:
                self._say(Dataset(root, name[:_NAME_CHARACTERS], 1, 0, 0))
            self._settle()
        self._level()

    def checkpoint(self, round: int, root: bytes) -> None:
        """Certify the averaged model of a round; all ranks together. Nobody waits for the commit.

        Args:
            round: steps done.
            root: of this rank's bytes of the model, see ``model_root``.
        """
        if not self._certify(lambda epoch, shares: Checkpoint(epoch, round, root, shares), root):
            self.uncertified.append(round)

    def end(self, round: int, root: bytes) -> dict[str, Any]:
        """Commit the last model and the end of the run; all ranks together, and wait for everything.

        Returns:
            What the summary says about the ledger.

        Raises:
            LedgerError: something was not committed.
        """
        if self._membership is not None:
            self._membership.settle()
        self.checkpoint(round, root)
        self._certify(lambda epoch, shares: End(epoch, self._run_id, round, root, shares), root)
        if speaks(self._peer):
            self._settle()
        self._level()
        height, head = self.driver.head
        return {
            "chain_id": self.state.chain_id.hex(),
            "height": height,
            "head": head.hex(),
            "epoch": self.state.table.epoch,
            "checkpoints": [record.round for record in self.state.run.checkpoints],
            "uncertified": self.uncertified,
            **(self._membership.summary() if self._membership else {}),
        }

    def __enter__(self) -> RunLedger:
        return self

    def __exit__(self, *error: object) -> None:
        if self._membership is not None:
            self._membership.close()
        self.driver.close()

    def _certify(self, body: Callable[[int, Attestation], Attested], root: bytes) -> bool:
        """Sign a statement together, and submit it; whether a quorum signed the same.

        It is of the oldest epoch that any living rank is in, because some may not have the newest block.
        """
        epochs = table(self._peer, [self.state.table.epoch])[list(living(self._peer.transport).members)]
        state, epoch = self.state, round(float(epochs.min()))
        voters = state.table_of(epoch)
        said = body(epoch, collect(voters, {}))
        mine = root + attest(self._key, state.chain_id, statement(said))
        shares: dict[int, bytes] = {}
        for rank, share in enumerate(everyone(self._peer, mine)):
            index = self._index(voters, rank)
            if index is None or share[:DIGEST_BYTES] != root:
                continue
            try:
                signature = share[DIGEST_BYTES:]
                verify_share(voters, index, state.chain_id, statement(said), signature)
            except SignatureError:
                continue
            shares[index] = signature
        if not voters.quorum(voters.weight(shares)):
            return False
        if speaks(self._peer):
            self._futures.append(self.driver.submit(prove(body(epoch, collect(voters, shares)))))
        return True

    @staticmethod
    def _index(voters: ValidatorTable, rank: int) -> int | None:
        for index, validator in enumerate(voters.validators):
            if validator.address == f"rank:{rank}":
                return index
        return None

    def _say(self, body: Body) -> None:
        """Submit a transaction of this rank."""
        sequence = self.state.accounts[self._key.public].sequence
        self._submitted = max(self._submitted, sequence)
        data = sign(self._key, self.state.chain_id, self._submitted, body)
        self._submitted += 1
        self._futures.append(self.driver.submit(data))

    def _settle(self) -> None:
        futures, self._futures = self._futures, []
        try:
            self.driver.wait(futures, self._timeout_s, self._peer.check)
        except TransactionError as error:
            raise LedgerError(f"the ledger refused what the run had to say: {error}") from None

    def _level(self) -> None:
        """Wait until every rank has what any rank had; nobody leaves while another still asks for it."""
        height = int(table(self._peer, [self.driver.head[0]]).max())
        self.driver.wait_for_height(height, self._timeout_s, self._peer.check)
        table(self._peer, [0.0])


class Opening:
    """The steps to a running ledger; those that talk to the others are apart, so that all fail together.

    Args:
        peer: this rank.
        base: directory of all ranks' nodes; ``rank-N`` in it is this one's.
        puzzle: what entry by work asks for, if the chain is made now; "" for SHA-256, or for what is there.

    Raises:
        ConfigError, SetupError, LedgerError: the key or the genesis there cannot be used.
    """

    def __init__(self, peer: Member, base: Path, puzzle: str = "") -> None:
        self._peer, self._puzzle = peer, puzzle
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
            self.genesis = founders(f"train {nonce.hex()[:32]}", keys, rules)
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
        return RunLedger(self._peer, self.key, driver, timeout_s, self._keys, self._fresh)


def everyone(peer: Member, mine: bytes) -> list[bytes]:
    """What every rank passes, by rank; the same number of bytes on all, and all call it together."""
    rows = np.rint(table(peer, list(mine))).astype(np.uint8)
    return [row.tobytes() for row in rows]


def digest(facts: Mapping[str, Any]) -> bytes:
    """SHA-256 of facts as canonical JSON, 32 bytes."""
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str).encode())


def keep(directory: RunDir, name: str, model: nn.Module, rank: int, vault: Vault | None = None) -> bytes:
    """Write a model's state on rank 0; the Merkle root of the bytes, which every rank makes of its own copy.

    Args:
        directory: of the run.
        name: of the file, in ``checkpoints``.
        model: the same on all ranks.
        rank: of this one.
        vault: seals the file, whose name then ends in ``SEALED``; the root is that of the bytes in the clear.

    Raises:
        SetupError: rank 0 cannot write it.
    """
    if rank:
        return model_root(model)
    if vault is not None:
        content = _saved(model).getbuffer()
        directory.write_with(f"checkpoints/{name}{SEALED}", lambda file: seal_model(file, content, vault))
        return bytes_root(content)
    directory.write_with(f"checkpoints/{name}", lambda file: torch.save(model.state_dict(), file))
    return file_root(directory.path / "checkpoints" / name)


def model_root(model: nn.Module) -> bytes:
    """Merkle root of the bytes that ``torch.save`` makes of the model's state, as ``keep`` writes them."""
    return bytes_root(_saved(model).getbuffer())


def _saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file


def _claim(nonce: bytes, rank: int, size: int, public: bytes, chain: bytes) -> bytes:
    return b"".join((_HELLO, nonce, rank.to_bytes(4, "big"), size.to_bytes(4, "big"), public, chain))
