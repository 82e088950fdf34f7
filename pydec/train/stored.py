"""Training data from the store: found by name on any rank, read from own disk or from peers, kept by all.

Some rank has the data set in its store (``pydec data add``); the others get its manifest, pull what they have
to hold, and fetch what a batch needs in between. Every chunk is verified, whoever gave it, and put into the
rank's own store, so that it is fetched once. Chunks that were damaged on disk come back the same way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pydec.comm.layout import node_layout
from pydec.comm.team import rank_of
from pydec.comm.transport import Stream
from pydec.consensus.transactions import Dataset as Registration
from pydec.crypto.keyring import Keyring
from pydec.errors import ChunkError, ConfigError, PydecError, StoreError
from pydec.peer import Peer
from pydec.store import keys
from pydec.store.challenges import Challenges
from pydec.store.dataset import Dataset
from pydec.store.dropping import Dropper
from pydec.store.exchange import Exchange
from pydec.store.gathering import Gathering
from pydec.store.keeper import Keeper
from pydec.store.manifest import Manifest
from pydec.store.messages import Kind
from pydec.store.serving import Proof
from pydec.store.standing import Standings
from pydec.store.store import Store
from pydec.train import stores
from pydec.train.checkpoint_keys import own_identity
from pydec.train.config import TrainConfig
from pydec.train.holding import Holding, name_of, rank_in
from pydec.train.together import jointly, table, texts

if TYPE_CHECKING:
    from pydec.train.jury import LedgerJury
    from pydec.train.ledger import RunLedger

REPAIR_BYTES_PER_S = 100e6
"""What a rank pulls at most to hold what it owes; what a batch waits for is not held back."""
CHALLENGE_S = 1.0
"""Between two challenges of a rank to another one, to prove that it holds what it owes."""
SCRUB_BYTES_PER_S = 10e6
"""What a rank reads again and verifies of what it holds: a thousandth of what one core hashes."""
_NAP_S = 0.0005
_TRIES = 40  # to write a manifest while another rank of this disk does


class Stored:
    """A data set that the ranks of a job share; also a ``Reader``.

    Args:
        peer: this rank.
        store: of this rank; ranks on one machine may share one.
        manifest: of the data set.
        exchange: with the other ranks.
        sources: ranks that had the data set before.
        node: of every rank, see ``node_layout``.
        key: what this rank opens it with, if the data set is private.
        owed_only: whether this rank's store keeps what it owes alone; nobody else writes into it then.
        jury: takes the stake of who does not prove what it owes; None without a ledger.
        writes: whether this rank writes down how far all ranks are, as one of those that share a store does.

    Attributes:
        repaired: chunks that were damaged on this disk and came back.
        challenges: that this rank makes, once it holds what it owes itself.
        proofs: of ranks that signed for something else than they were asked for.
    """

    def __init__(
        self,
        peer: Peer,
        store: Store,
        manifest: Manifest,
        exchange: Exchange,
        sources: list[int],
        node: list[int],
        key: Keyring | None,
        proofs: list[Proof],
        *,
        owed_only: bool = False,
        jury: LedgerJury | None = None,
        writes: bool = True,
    ) -> None:
        self._key, self.proofs = key, proofs
        self.manifest, self.exchange, self.repaired = manifest, exchange, 0
        self._peer, self._store = peer, store
        self.holding = Holding(store, manifest, node, peer.rank, sources)
        link = peer.transport.stream(Stream.DATA)
        self._indices = {shard.index for shard in manifest.shards} if owed_only else None
        self.dropper = Dropper(exchange, link, store, [manifest.root]) if owed_only else None
        self.keeper = Keeper(
            exchange, link, store, [manifest], name_of(peer.rank), bytes_per_s=REPAIR_BYTES_PER_S,
            scrub_bytes_per_s=SCRUB_BYTES_PER_S if peer.size > 1 else 0.0,
            dropper=self.dropper, rank_of=rank_in,
        )  # fmt: skip
        self.jury = jury
        self.challenges = Challenges(
            exchange, link, store.objects, self.holding.draw, CHALLENGE_S, jury=jury, owes=self.holding.owes
        )
        exchange.lacking = self._lacking
        self.standings = Standings(
            exchange, link, self.keeper, store, manifest, REPAIR_BYTES_PER_S, writes=writes
        )
        self._failure: PydecError | None = None
        self.keeper.enter(self.holding.now, self.holding.all)

    def dataset(self, **options: Any) -> Dataset:
        """The data set, for a task.

        Args:
            **options: ``fields``, ``part``, ``transform``, ``cache_bytes`` of ``pydec.store.Dataset``.

        Raises:
            ConfigError: no such field or part.
        """
        name = self.manifest.root.hex()
        return Dataset(name, store=self._store.directory, reader=self, key=self._key, **options)

    def get(self, digest: bytes) -> bytes:
        """See ``Reader.get``."""
        try:
            return self._store.objects.get(digest)
        except ChunkError as error:
            if self._peer.size == 1:
                raise
            damaged = not error.missing
        data = self.exchange.get(digest, nap=self._nap)
        self.repaired += damaged
        return data

    def several(self, names: Sequence[bytes], count: int) -> dict[int, bytes]:
        """See ``Several.several``: what is not here comes from different ranks at the same time."""
        found: dict[int, bytes] = {}
        for number, name in enumerate(names):
            try:
                found[number] = self._store.objects.get(name)
            except ChunkError as error:
                self.repaired += not error.missing
            if len(found) == count:
                return found
        if self._peer.size == 1:
            return found
        self.holding.look_up(names)
        others = Gathering(self.exchange, names, found, count)
        while not others.done:
            if not (others.turn() | self.exchange.turn()):
                self._nap()
        return others.found

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        """See ``Objects.peek``."""
        return self._store.objects.peek(digest, offset, n_bytes)

    def turn(self) -> bool:
        """Serve, fetch and keep; called beside training."""
        if not self.exchange.lock.acquire(blocking=False):
            return False  # this rank's program is at it
        try:
            return self._turn()
        finally:
            self.exchange.lock.release()

    def _turn(self) -> bool:
        moved = self.exchange.turn()
        if self._failure is None:
            try:
                moved |= self._enter()
                moved |= self.keeper.turn()
                if self._peer.size > 1:
                    self.standings.turn()
                if self.keeper.done and self._peer.size > 1:
                    moved |= self.challenges.turn()
            except StoreError as error:
                self._failure = error
        return moved

    def keeps(self, digest: bytes) -> bool:
        """Whether an object that came goes into this rank's store."""
        if self._indices is None or digest in self._indices:
            return True
        if self.manifest.head.policy.parity:
            return self.keeper.owes_fragment(digest)
        return self.holding.mine(digest)

    @property
    def transaction(self) -> Registration | None:
        """What registers the data set on a ledger; None of a private one, as its owner does that."""
        policy, root, name = self.manifest.head.policy, self.manifest.root, self.manifest.name
        if policy.encryption:
            return None
        return Registration(root, name, policy.replicas, policy.parity, 0, policy.parent)

    def totals(self) -> dict[str, Any]:
        """What the summary says of all ranks' data; all ranks together."""
        counts = self.exchange.counts
        table(self._peer, [0.0])  # nobody is asked for anything more
        with self.exchange.lock:
            standing = self.keeper.standing
            self.standings.tell()
        mine = {
            "objects_fetched": counts["fetched"],
            "bytes_fetched": counts["bytes_fetched"],
            "bad_answers": counts["bad"],
            "unsigned_answers": counts["unsigned"],
            "proofs": len(self.proofs),
            "challenges": self.challenges.asked,
            "challenges_met": self.challenges.proved,
            "objects_not_kept": counts["unkept"],
            "objects_repaired": self.repaired + self.keeper.damaged,
            "objects_scrubbed": self.keeper.scrubbed,
            "fragments_remade": self.keeper.remade,
            "objects_dropped": 0 if self.dropper is None else self.dropper.dropped,
            "objects_owed": standing.owed,
            "objects_held": standing.here,
            "bytes_to_hold": standing.missing_bytes,
        }
        names = list(mine)
        rows = table(self._peer, [float(n) for n in mine.values()]).sum(axis=0)
        found: dict[str, Any] = {name: round(float(n)) for name, n in zip(names, rows, strict=True)}
        for word, by in (("missed", self.challenges.missed), ("unanswered", self.challenges.silent)):
            mine_of = [float(by[rank]) for rank in range(self._peer.size)]
            by_rank = table(self._peer, mine_of).sum(axis=0)
            found[f"challenges_{word}"] = {str(rank): round(float(n)) for rank, n in enumerate(by_rank) if n}
        with self.exchange.lock:
            self.exchange.turn()
            self.standings.tell()
            self.standings.write()
        found["stake_lost"] = [] if self.jury is None else sorted(self.jury.convicted())
        return found

    def _enter(self) -> bool:
        """Hold what is to be held without those that are gone, or have lost their stake."""
        lost = self._peer.transport.lost()
        gone = lost if self.jury is None else lost | self.jury.convicted() - {self._peer.rank}
        changed = self.holding.leave_out(gone)
        if changed:
            self.keeper.enter(self.holding.now, self.holding.all)
        return changed

    def _lacking(self, digest: bytes) -> None:
        """Another rank wants proved what is not here: get it, if it is owed."""
        parity = self.manifest.head.policy.parity
        if self.keeper.owes_fragment(digest) if parity else self.holding.mine(digest):
            self.exchange.want(digest)

    def _nap(self) -> None:
        _nap(self._peer)


@contextmanager
def stored(peer: Peer, config: TrainConfig, ledger: RunLedger | None = None) -> Iterator[Stored | None]:
    """The data set that ``config.data`` names in some rank's store; None if it is a path, or nothing.

    All ranks enter it together, and leave it when none reads any more.

    Args:
        peer: this rank.
        config: as the user gave it.
        ledger: knows who may read and keep data, and judges who signs for wrong bytes; None lets every rank,
            and nobody signs.

    Raises:
        SharedError: two ranks have different data sets of that name, or a rank cannot get or keep it, or has
            no role for reading it.
    """
    if not config.data:
        yield None
        return
    admission = None if ledger is None else ledger.admission
    said = texts(peer, jointly(peer, lambda: stores.look(peer, config)))
    roots = sorted({words for words in said if words not in ("", stores.PATH)})
    if stores.PATH in said or not roots:
        yield None
        return
    jointly(peer, lambda: stores.check_one(config.data, roots, said), settled=False)
    if admission is not None:
        jointly(peer, admission.check_reader)
    root, sources = bytes.fromhex(roots[0]), [rank for rank, words in enumerate(said) if words == roots[0]]
    store = jointly(peer, lambda: stores.opened(peer, config))
    owed_only = config.keep_data == "owed" and peer.size > 1
    if owed_only:
        jointly(peer, lambda: stores.check_apart(peer, store), settled=False)
    node = node_layout(peer.transport) if peer.size > 1 else [0]
    link = peer.transport.stream(Stream.DATA)
    found: list[Stored] = []
    proofs: list[Proof] = []
    exchange = Exchange(
        link,
        store,
        lambda digest: found[0].holding.order(digest) if found else sources,
        lambda place, _: admission is None or admission.may_have(place, _sealed(store, root, found)),
        None if ledger is None else ledger.seal(proofs.append),
        lambda digest: not found or found[0].keeps(digest),
    )

    def tick() -> bool:
        return found[0].turn() if found else exchange.turn()

    background = link.background(tick) if peer.size > 1 else None
    use = ExitStack()
    try:
        jointly(peer, lambda: stores.check_threads(peer, background))
        jointly(peer, lambda: use.enter_context(store.using(root)))
        manifest = jointly(peer, lambda: _manifest(peer, store, exchange, root))
        key = _reader(peer, config, store, manifest, ledger)
        lets_go = owed_only and store.is_part(root)
        who = sources, node, key, proofs
        jury = None if ledger is None else ledger.jury(root)
        first = stores.first_of(peer, store)
        found.append(
            Stored(peer, store, manifest, exchange, *who, owed_only=lets_go, jury=jury, writes=first)
        )
        yield found[0]
    finally:
        if background is not None:
            background.close()
        use.close()
        store.close()


def _sealed(store: Store, root: bytes, found: list[Stored]) -> bool:
    """Whether a data set is private; False while it is not here."""
    if not found and root not in store.roots():
        return False
    manifest = found[0].manifest if found else store.manifest(root)
    return bool(manifest.head.policy.encryption)


def _reader(
    peer: Peer, config: TrainConfig, store: Store, manifest: Manifest, ledger: RunLedger | None
) -> Keyring | None:
    """What opens a private data set here: by the grants of the ledger if that knows it, else by those beside
    the data; all ranks together.
    """
    lock = manifest.head.policy.encryption
    if not lock:
        return None
    known = texts(peer, jointly(peer, lambda: keys.entries(store, manifest.root).hex()))

    def take() -> Keyring:
        if not (config.key or config.ledger):
            raise ConfigError(
                f"--data {config.data} is private: name the key that may read it with --key, or --ledger for "
                "the "
                "ranks' own"
            )
        identity = own_identity(config, rank_of(peer.transport, peer.rank))
        ring = None if ledger is None else ledger.admission.keyring(identity, manifest.root, lock)
        if ring is None:
            if not keys.entries(store, manifest.root):
                keys.adopt(store, manifest.root, bytes.fromhex(max(known, key=len)))
            ring = keys.keyring(store, manifest, identity)
        assert ring is not None
        ring.check_complete()
        return ring

    return jointly(peer, take)


def _manifest(peer: Peer, store: Store, exchange: Exchange, root: bytes) -> Manifest:
    if root not in store.roots():
        data = exchange.get(root, Kind.MANIFEST, lambda: _nap(peer))
        manifest = Manifest.decode(data)
        store.note_part(root)
        for left in reversed(range(_TRIES)):
            try:
                store.add_manifest(manifest)
                break
            except StoreError:
                if root in store.roots():
                    break
                if not left:
                    raise
                time.sleep(_NAP_S)
    return store.manifest(root)


def _nap(peer: Peer) -> None:
    peer.check()
    if hasattr(peer.transport, "sleep"):  # the local cluster's clock
        peer.transport.sleep(_NAP_S)
    else:
        time.sleep(_NAP_S)
