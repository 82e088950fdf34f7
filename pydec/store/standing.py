"""How far all peers of a job hold a data set: each tells the others now and then, and keeps what they told.

    DIR/standing/ROOT    what this peer knew last, as JSON: for ``pydec data status``

The file is no part of the data: one that cannot be written or read is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pydec.disk import create_whole
from pydec.errors import FrameError
from pydec.store.exchange import Exchange
from pydec.store.keeper import Keeper
from pydec.store.link import Link
from pydec.store.manifest import Manifest
from pydec.store.messages import STANDING_BYTES, Kind, Message
from pydec.store.store import Store

TELL_S = 5.0
"""Between two times that a peer tells the others how far it is."""
_FORMAT = struct.Struct("<QQQQB")
assert _FORMAT.size == STANDING_BYTES
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Tally:
    """What a peer says of itself.

    Args:
        owed, here: objects, as far as it has looked.
        missing_bytes: of those that are not here.
        lost: of those, the ones that no peer gave when asked last, or that its disk did not take.
        done: 1 if it has looked at everything, and nothing more is on its way.
    """

    owed: int
    here: int
    missing_bytes: int
    lost: int
    done: int

    def encode(self) -> bytes:
        """The bytes."""
        return _FORMAT.pack(self.owed, self.here, self.missing_bytes, self.lost, self.done)

    @classmethod
    def decode(cls, data: bytes) -> Tally:
        """The tally of exactly these bytes.

        Raises:
            FrameError: they are none.
        """
        if len(data) != _FORMAT.size:
            raise FrameError(f"a tally has {_FORMAT.size} bytes, got {len(data)}")
        found = cls(*_FORMAT.unpack(data))
        if found.here > found.owed or found.done > 1:
            raise FrameError(f"a tally of {found.here} objects of {found.owed}, done {found.done}")
        return found


class Standings:
    """One peer's part; ``turn`` moves it on and never waits.

    Args:
        exchange: carries what is said. link: whose clock counts.
        keeper: of this peer.
        store: where the file is.
        manifest: of the data set.
        bytes_per_s: what each peer may use to repair.
        writes: whether this peer writes the file: one of those that share a store.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        keeper: Keeper,
        store: Store,
        manifest: Manifest,
        bytes_per_s: float,
        *,
        writes: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._exchange, self._link, self._keeper, self._store = exchange, link, keeper, store
        self._manifest, self._rate, self._writes, self._clock = manifest, bytes_per_s, writes, clock
        self._next_s = link.now()
        self.known: dict[int, Tally] = {}

    def turn(self) -> bool:
        """Tell the others, and write down what is known, if it is time; whether it was."""
        if self._link.now() < self._next_s:
            return False
        self._next_s = self._link.now() + TELL_S
        self.tell()
        self.write()
        return True

    def tell(self) -> None:
        """Take what has come, and say how far this peer is."""
        for peer, body in self._exchange.standings.items():
            with contextlib.suppress(FrameError):
                self.known[peer] = Tally.decode(body)
        now = self._keeper.standing
        mine = Tally(now.owed, now.here, now.missing_bytes, now.lost, int(self._keeper.done))
        self.known[self._link.rank] = mine
        gone = self._link.lost()
        said = Message(Kind.STANDING, 0, self._manifest.root, body=mine.encode())
        for peer in range(self._link.size):
            if peer != self._link.rank and peer not in gone:
                self._exchange.tell(peer, said)

    def write(self) -> None:
        """Write down what is known."""
        if not self._writes:
            return
        gone = sorted(self._link.lost())
        said = {
            "time": self._clock(),
            "host": platform.node(),
            "pid": os.getpid(),
            "peers": self._link.size,
            "gone": gone,
            "bytes_per_s": self._rate,
            "tallies": {str(peer): asdict(tally) for peer, tally in sorted(self.known.items())},
        }
        path = self._store.directory / "standing" / self._manifest.root.hex()
        with contextlib.suppress(OSError):
            self._store.disk.make_directory(path.parent)
            create_whole(self._store.disk, path, json.dumps(said).encode())


def read(store: Store, manifest: Manifest) -> dict[str, Any] | None:
    """What the last run, or the one that goes on, knew of a data set; None if there is nothing.

    Returns:
        ``age_s`` since it was written, ``running`` whether the process that wrote it lives, ``peers`` and
        ``gone`` ranks, ``unknown`` ranks that said nothing, ``replicas_wanted``; of the chunks
        ``replicas_mean`` and ``replicas_least``: what surely is there of each; ``under_replicated_bytes``
        and ``lost_objects``; ``repair_s`` to bring them back at ``bytes_per_s`` for each peer; ``complete``
        whether all peers have looked at everything.
    """
    path = store.directory / "standing" / manifest.root.hex()
    try:
        said = json.loads(store.disk.read_whole(path, _MOST_BYTES))
        tallies = {int(peer): Tally(**tally) for peer, tally in said["tallies"].items()}
        peers, gone, rate = (
            int(said["peers"]),
            [int(rank) for rank in said["gone"]],
            float(said["bytes_per_s"]),
        )
        age_s = max(0.0, time.time() - float(said["time"]))
        running = said["host"] == platform.node() and _lives(int(said["pid"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    living = {peer: tally for peer, tally in tallies.items() if peer not in gone}
    shards = len(manifest.shards)  # whose indices every peer holds
    owed = sum(max(0, tally.owed - shards) for tally in living.values())
    here = sum(max(0, tally.here - shards) for tally in living.values())
    policy = manifest.head.policy
    copies = min(1 if policy.parity else policy.replicas, peers - len(gone))
    behind = sum(1 for tally in living.values() if tally.missing_bytes)
    unknown = [rank for rank in range(peers) if rank not in tallies and rank not in gone]
    return {
        "age_s": round(age_s, 1),
        "running": running,
        "peers": peers,
        "gone": gone,
        "unknown": unknown,
        "replicas_wanted": 1 if policy.parity else policy.replicas,
        "replicas_mean": round(copies * here / owed, 4) if owed else float(copies),
        "replicas_least": max(0, copies - behind - len(unknown)),
        "under_replicated_bytes": sum(tally.missing_bytes for tally in living.values()),
        "lost_objects": sum(tally.lost for tally in living.values()),
        "bytes_per_s": rate,
        "repair_s": round(max((t.missing_bytes / rate for t in living.values()), default=0.0), 3),
        "complete": not unknown and all(tally.done for tally in living.values()),
    }


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OverflowError:
        return False
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True
