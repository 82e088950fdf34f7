"""A training run on the ledger: who takes part, with which configuration and data, which models came out.

Every rank keeps a node in ``DIR/rank-N`` with a key of its own. The first run makes the chain: its genesis
are the ranks' keys, each proved by a signature over a nonce that rank 0 has just drawn. Later runs go on with
it, also with other ranks (see ``roster``). Training never waits for it: what is submitted on the way is
awaited at the end.

A checkpoint and the end of a run count once a quorum of the ranks has signed the digest of the averaged
model, which each has computed from its own copy.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydec.comm.living import living
from pydec.comm.team import rank_of
from pydec.consensus.access import Action
from pydec.consensus.attestation import Attestation, attest, collect, verify_share
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.inbox import Inbox
from pydec.consensus.options import OPTIONS
from pydec.consensus.roles import Role
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
    Forgery,
    prove,
    sign,
    statement,
)
from pydec.consensus.validators import ValidatorTable
from pydec.crypto.hashing import DIGEST_BYTES, sha256
from pydec.crypto.signing import SigningKey
from pydec.errors import AccessDenied, LedgerError, PeerError, SignatureError, Stopped, TransactionError
from pydec.gossip.witness import Witness
from pydec.optim.optimizer import DecentralizedOptimizer
from pydec.store.serving import Proof, Seal
from pydec.train.accountability import Accountability
from pydec.train.admission import Admission
from pydec.train.audit import Audits, Court
from pydec.train.court import LedgerCourt
from pydec.train.jury import LedgerJury
from pydec.train.membership import Membership, Minority
from pydec.train.observers import Feed
from pydec.train.roster import PART_S, Roster
from pydec.train.together import Member, SharedError, everyone, jointly, speaks, table, text

_NAME_CHARACTERS = 64


class RunLedger:
    """One rank's part of a run's ledger; made by ``Opening.open``. Rank 0 speaks for the run.

    Args:
        peer: this rank.
        key: of this rank.
        directory: of this rank's node.
        driver: running.
        timeout_s: how long to wait for commits at the start and the end.
        admission: with the keys of all ranks, nobody outside yet.
        fresh, roles: see ``Roster``.

    Attributes:
        feed: tells those outside.
        uncertified: rounds whose model the ranks did not agree on, so that no quorum signed.
    """

    def __init__(
        self,
        peer: Member,
        key: SigningKey,
        directory: Path,
        driver: Driver,
        timeout_s: float,
        admission: Admission,
        fresh: frozenset[int],
        roles: Role | None = None,
    ) -> None:
        self.driver, self.admission, self.feed = driver, admission, Feed(admission, driver)
        self._roster = Roster(
            peer, peer.rank, key, admission.keys, fresh, driver, self._level, timeout_s, roles
        )
        self.uncertified: list[int] = []
        self._peer, self._key, self._timeout_s = peer, key, timeout_s
        self._inbox = Inbox(directory)
        self._run_id = NO_DIGEST
        self._futures: list[Future[Receipt]] = []
        self._accusations: list[Future[Receipt]] = []
        self._submitted = 0
        self._membership: Membership | None = None
        self._accounts: Accountability | None = None
        self._audits: Audits | None = None

    def follow(self, optimizer: DecentralizedOptimizer) -> None:
        """From now on the optimiser's members are the ledger's; see ``Membership``."""
        self._membership = Membership(
            self._peer, self.driver, optimizer, self._timeout_s, self.admission, self._beside
        )

    def seal(self, told: Callable[[Proof], None]) -> Seal:
        """What signs the objects of the store that this rank gives to others, and checks theirs.

        Args:
            told: of every proof, which goes to the ledger too: it takes the stake of who is shown to have
                signed for something else.
        """

        def accuse(proof: Proof) -> None:
            told(proof)
            node = keys[proof.peer]
            if node in accused:
                return
            accused.add(node)
            body = Forgery(node, proof.asker, proof.request, proof.name, proof.digest, proof.signature)
            self._accuse(prove(body))

        accused: set[bytes] = set()
        transport = self._peer.transport
        keys = {place: self.admission.keys[rank_of(transport, place)] for place in range(transport.size)}
        return Seal(transport.rank, self._key, keys, self.state.chain_id, accuse)

    def jury(self, root: bytes) -> LedgerJury:
        """This rank's vote on who does not hold what it owes of a data set."""
        transport = self._peer.transport
        nodes = [self.admission.keys[rank_of(transport, place)] for place in range(transport.size)]
        return LedgerJury(transport.rank, self._key, nodes, root, lambda: self.state, self._accuse)

    def _accuse(self, transaction: bytes) -> None:
        self._accusations.append(self.driver.submit(transaction))

    def hold_to_account(self, optimizer: DecentralizedOptimizer) -> None:
        """From now on the ranks sign what they send; see ``Accountability``. All ranks together."""
        self._accounts = Accountability(
            self._peer.transport, self._key, self._run_id, self.driver, self.admission, optimizer
        )

    def audit(self, make: Callable[[Court, Witness], Audits]) -> None:
        """From now on steps are run again, after ``hold_to_account``; see ``Audits``. All ranks together."""
        assert self._accounts is not None
        court = LedgerCourt(
            self._peer, self._key, self.driver, self.admission, self._timeout_s, self._find, self._level
        )
        self._audits = make(court, self._accounts.witness)

    def align(self) -> None:
        """All that take part are at one step: go on without those whose roles have changed since."""
        if self._audits is not None:
            self._audits.meet()
        if self._membership is not None:
            self._membership.align()

    def enter(self) -> None:
        """Make the ledger's members the ranks of this job, and decide who takes part; all ranks together.

        See ``Roster.enter`` and ``Admission.decide``.
        """
        self._level()
        self._roster.enter(lambda: self._inbox.look(self.driver))
        jointly(self._peer, lambda: self.admission.decide(self._level), settled=False)

    def _beside(self) -> None:
        """Hand over what was laid into this rank's inbox, now and then."""
        self._inbox.look(self.driver, self.admission.whole.now())
        if self._accounts is not None:
            self._accounts.look()

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

    def begin(
        self,
        config: bytes,
        options: Mapping[str, Any],
        facts: Mapping[str, Any],
        name: str,
        data: Dataset | None = None,
    ) -> None:
        """Commit the run's configuration and data; all ranks together, and returns when it is committed.

        Args:
            config: content of ``config.json``; its SHA-256 is committed.
            options: of the run; those that the ledger knows are committed.
            facts: what is known of the data and its split; their digest stands for the data set.
            name: of the data, for people.
            data: registers the data set of the store that the run reads, if it reads one.

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
        self._settle()
        known, root = dict(self.state.run.options), digest(facts)
        wanted = {name: str(options[name]) for name in OPTIONS if options.get(name)}
        changed = [(name, v) for name, v in wanted.items() if known.get(name) != v and OPTIONS[name][0](v)]
        bodies: list[tuple[Action, Body]] = [(Action.BEGIN_RUN, Begin(self._run_id, sha256(config)))]
        if changed:
            bodies.append((Action.CONFIGURE, Config(tuple(sorted(changed)))))
        if root not in self.state.datasets:
            bodies.append((Action.REGISTER_DATA, Dataset(root, name[:_NAME_CHARACTERS], 1, 0, 0)))
        if data is not None and data.root not in self.state.datasets:
            bodies.append((Action.REGISTER_DATA, self._known_parent(data)))
        try:
            speakers = [self.admission.who_may(action) for action, _ in bodies]
        except AccessDenied as denied:  # on all ranks
            raise SharedError(denied) from denied
        for speaker, (_, body) in zip(speakers, bodies, strict=True):
            if speaker == self.admission.rank:
                self._say(body)
        self._settle()
        self._level()
        begun = table(self._peer, [float(self.state.run.run_id == self._run_id)])
        if not begun[list(living(self._peer.transport).members)].all():
            raise LedgerError(
                f"rank {speakers[0]} died before it had begun the run on the ledger; start again"
            )

    def _known_parent(self, data: Dataset) -> Dataset:
        """The same without the data set that it extends, unless who registers it has registered that one."""
        parent = self.state.datasets.get(data.parent)
        may = [rank for rank in self.admission.inside if self.admission.may(rank, Action.REGISTER_DATA)]
        known = parent is not None and may and parent.owner == self.admission.keys[may[0]]
        return data if known else replace(data, parent=NO_DIGEST)

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
        self.feed.flush()
        for future in list(self._accusations):
            with suppress(TransactionError):  # another rank has proved it already
                self.driver.wait([future], self._timeout_s, self._peer.check)
        accountable: dict[str, Any] = {}
        if self._accounts is not None:
            self._accounts.settle(self._timeout_s, self._peer.check)
            self._level()
            accountable = {"accountable": self._accounts.summary(self._peer)}
            if self._audits is not None:
                accountable["audits"] = self._audits.summary()
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
            "denied": self.driver.gate.summary(),
            "outside": sorted(self.admission.outside),
            **(self._membership.summary() if self._membership else {}),
            **accountable,
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

    def _find(self, body: Callable[[int, Attestation], Attested], root: bytes) -> bool:
        """As ``_certify``, of what may be void once it is decided, because of other evidence."""
        before = len(self._futures)
        said = self._certify(body, root)
        self._accusations += self._futures[before:]
        del self._futures[before:]
        return said

    def _index(self, voters: ValidatorTable, rank: int) -> int | None:
        address = f"rank:{rank_of(self._peer.transport, rank)}"
        for index, validator in enumerate(voters.validators):
            if validator.address == address:
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


def digest(facts: Mapping[str, Any]) -> bytes:
    """SHA-256 of facts as canonical JSON, 32 bytes."""
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str).encode())
