"""Which parts of checkpoints lie on which disks, and how the missing ones come from other disks.

A checkpoint is one part of every rank that lived; parts and their copies (see ``replicas``) may be on any
disk. Before a run goes on, the ranks of every disk read the manifests there and tell all others step, rank
and digest of what they hold. So all have the same table and come to the same decisions, one checkpoint after
the other, the newest first:

1. Parts belong together if they are of one step, of the same ranks and of one past; a checkpoint is complete
   if some disk holds every part.
2. Where disks hold different parts for one rank, the ledger decides, if it has certified that checkpoint;
   else most disks, then the disk of the rank that reads it. With a ledger that has certified anything, a part
   that has to come from another rank's disk must be of a certified checkpoint.
3. The ranks of a disk hash its files. What a rank needs and its disk does not hold whole comes from one that
   does, as posted messages of the STORE stream. What arrives must have the digest that was agreed on; else
   the disk that sent it is named and the next is asked. Each part is then copied until as many disks hold it
   as the run asks for.

If a part is on no disk any more, the next older checkpoint is tried.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.comm.living import living
from pydec.crypto.hashing import merkle_root, sha256
from pydec.errors import PydecError, SetupError
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.replicas import Replicas, disks, holders
from pydec.train.replicas_chunks import replicas as made
from pydec.train.together import Member, settle, table, texts

Roots = Mapping[int, frozenset[str]]
"""Merkle roots that the ledger has certified, in hexadecimal, by step."""
_MOST_CHOICES = 4096  # of contested parts that are compared with a root


@dataclass(frozen=True, order=True)
class Line:
    """What makes parts belong together: step, number of starts before it, ranks, digest of their past."""

    step: int
    age: int
    members: tuple[int, ...]
    past: str


@dataclass(frozen=True)
class Move:
    """A part on its way: whose it is, and from and to which ranks."""

    part: int
    source: int
    to: tuple[int, ...]


class Parts:
    """The parts on all disks; all ranks make it, and call its methods, together.

    Args:
        peer: this rank.
        store: where this rank's checkpoints are.
        copies: disks that every part is to be on.

    Attributes:
        lines: what there is, the newest first.
        said: damaged parts, and what was done about them; the same on all ranks.

    Raises:
        SetupError: the run directory of a rank cannot be written.
        ConfigError: a manifest is of a newer pydec.
    """

    def __init__(self, peer: Member, store: Store, copies: int) -> None:
        self.said: list[str] = []
        self._peer, self._store, self._copies = peer, store, copies
        self._disk = disks(peer, store.home) if peer.size > 1 else [0]
        self._mates = [rank for rank in range(peer.size) if self._disk[rank] == self._disk[peer.rank]]
        self._claims: dict[Line, dict[int, dict[str, set[int]]]] = {}  # disks by line, rank and digest
        self._damage: dict[tuple[int, int], str] = {}
        held, error = self._read()
        settle(peer, error)
        for rank, words in enumerate(texts(peer, json.dumps(held) if any(held) else "")):
            found, damaged = json.loads(words) if words else ([], [])
            for step, age, members, past, digests in found:
                claims = self._claims.setdefault(Line(step, age, tuple(members), past), {})
                for part, digest in digests:
                    claims.setdefault(part, {}).setdefault(digest, set()).add(self._disk[rank])
            for step, part, why in damaged:
                self._damage.setdefault((step, part), self._of(rank, why))
        self.lines = sorted(self._claims, reverse=True)

    def missing(self, line: Line) -> str:
        """The part of a checkpoint that no disk holds, in words; "" if it is complete."""
        for part in line.members:
            if part not in self._claims[line]:
                words = f"{self._store.path(line.step, part, 'json')} is missing" + self._everywhere()
                return self._damage.get((line.step, part), words)
        return ""

    def foreign(self, line: Line) -> bool:
        """Whether a part has to come from another rank's disk, or disks hold different ones."""
        claims = self._claims[line]
        return any(
            len(claims[part]) > 1 or self._disk[self._reader(line, part)] not in _all(claims[part])
            for part in line.members
        )

    def choose(self, line: Line, roots: Roots) -> tuple[list[str], str]:
        """The digests that the parts of a complete checkpoint must have, in order, or why there are none.

        Args:
            line: complete.
            roots: certified; empty if there is no ledger.
        """
        claims = [self._claims[line][part] for part in line.members]
        if roots and self.foreign(line):
            for choice in itertools.islice(itertools.product(*map(sorted, claims)), _MOST_CHOICES):
                if merkle_root(map(bytes.fromhex, choice)).hex() in roots.get(line.step, ()):
                    return list(choice), ""
            known = line.step in roots
            words = "have not the root that the ledger certified" if known else "are not certified"
            return [], f"its parts {words}, and some would come from other ranks' disks"
        chosen: list[str] = []
        for part, digests in zip(line.members, claims, strict=True):
            home = self._disk[self._reader(line, part)]
            ranked = sorted(((len(on), home in on, digest) for digest, on in digests.items()), reverse=True)
            if len(ranked) > 1 and ranked[0][:2] == ranked[1][:2]:
                where = " and ".join(f"rank {min(on)}'s disk" for _, on in sorted(digests.items()))
                return [], f"{where} hold different parts of rank {part}, and nothing says which is right"
            chosen.append(ranked[0][2])
        return chosen, ""

    def gather(self, line: Line, digests: Sequence[str]) -> str:
        """Bring every part where it is needed, whole, and copies to as many disks as asked for.

        Args:
            line: complete.
            digests: see ``choose``.

        Returns:
            Which part is on no disk any more, in words; "" if all are in place.

        Raises:
            SetupError: a rank's disk cannot take a part that it needs.
        """
        size, here = self._peer.size, self._peer.rank
        whole = self._verified(line, digests)
        gone = [part for part, on in zip(line.members, whole, strict=True) if not on.any()]
        if gone or size == 1:
            return self._lost(line, gone)
        full: set[tuple[int, int]] = set()  # parts, and ranks whose disks cannot take them
        fetched: set[int] = set()
        copied = 0
        with made(self._peer, self._store, self._copies, self._disk) as replicas:
            replicas.expected = {(line.step, m): d for m, d in zip(line.members, digests, strict=True)}
            while True:
                moves = self._moves(line, whole, replicas.node, full)
                if not moves:
                    break
                for move in moves:
                    if move.source == here:
                        replicas.begin(line.step, move.part, move.to)
                replicas.finish()
                for move, to, there in self._came(line, moves, replicas, full):
                    place = line.members.index(move.part)
                    if not there:
                        whole[place, self._disk[move.source]] = False
                        continue
                    whole[place, self._disk[to]] = True
                    if to == self._reader(line, move.part):
                        fetched.add(move.part)
                    else:
                        copied += 1
                gone = [part for part, on in zip(line.members, whole, strict=True) if not on.any()]
                if gone:
                    return self._lost(line, gone)
        if fetched or copied:
            self.said.append(_summary(line, sorted(fetched), copied))
        return ""

    def _read(self) -> tuple[tuple[list[Any], list[Any]], PydecError | None]:
        """What this rank finds in its share of the manifests on its disk: what is whole, and what is not."""
        found: dict[Line, list[tuple[int, str]]] = {}
        damaged: list[tuple[int, int, str]] = []
        try:
            for step in self._store.folders():
                for part in self._share(self._store.ranks(step)):
                    try:
                        manifest = self._store.manifest(step, part)
                        line = _line(manifest)
                    except SetupError as error:
                        damaged.append((step, part, str(error)))
                    else:
                        found.setdefault(line, []).append((part, digest_of(manifest)))
        except PydecError as error:
            return ([], []), error
        return ([[*_fields(line), parts] for line, parts in found.items()], damaged), None

    def _verified(self, line: Line, digests: Sequence[str]) -> NDArray[np.bool_]:
        """Which disks hold the parts whole, bool of shape (parts, size); the others are named."""
        wanted = dict(zip(line.members, digests, strict=True))
        mine: list[int] = []
        damaged: list[tuple[int, str]] = []
        for part in self._share(sorted(wanted.keys() & {*self._store.ranks(line.step)})):
            try:
                digest = digest_of(self._store.verify(line.step, part))
            except SetupError as error:
                damaged.append((part, str(error)))
                continue
            if digest == wanted[part]:
                mine.append(part)
            else:
                path = self._store.path(line.step, part, "json")
                words = f"{path} has digest {digest[:16]}, and {wanted[part][:16]} is the right one"
                damaged.append((part, words))
        whole = self._tabled(line, mine)
        for rank, said in enumerate(texts(self._peer, json.dumps(damaged) if damaged else "")):
            for part, words in json.loads(said) if said else []:
                self._damage[line.step, part] = self._of(rank, words)
                self.said.append(self._damage[line.step, part])
        return whole

    def _moves(
        self, line: Line, whole: NDArray[np.bool_], node: Sequence[int], full: set[tuple[int, int]]
    ) -> list[Move]:
        """One part from every rank that has to send: to who reads it, and to disks that make it enough."""
        members = living(self._peer.transport).members
        load: dict[int, int] = {}
        first: dict[int, Move] = {}
        for part, on in zip(line.members, whole, strict=True):
            reader = self._reader(line, part)
            sources = [rank for rank in members if on[self._disk[rank]]]
            if not sources:
                continue
            to = [reader] if reader in members and not on[self._disk[reader]] else []
            held = int(on.sum()) + len(to)
            for other in holders(reader, members, self._disk, node):
                if held < self._copies and not on[self._disk[other]] and (part, other) not in full:
                    to.append(other)
                    held += 1
            if to:
                source = min(sources, key=lambda rank: (load.get(rank, 0), rank))
                load[source] = load.get(source, 0) + 1
                first.setdefault(source, Move(part, source, tuple(to)))
        return list(first.values())

    def _came(
        self, line: Line, moves: Sequence[Move], replicas: Replicas, full: set[tuple[int, int]]
    ) -> list[tuple[Move, int, bool]]:
        """Which moves reached whom, or did not for a fault of their source.

        ``full`` gains the disks that cannot take more.
        """
        rows = self._tabled(line, [part for _, part in replicas.arrived], by_disk=False)
        refused = [(source, part, *why) for (source, _, part), why in replicas.refused.items()]
        told = [refused, replicas.failure] if refused or replicas.failure else None
        replicas.arrived.clear()
        replicas.refused.clear()
        why: dict[tuple[int, int], str] = {}
        needs = ""
        for rank, words in enumerate(texts(self._peer, json.dumps(told) if told else "")):
            notes, failure = json.loads(words) if words else ([], "")
            for source, part, reason, damaged in notes:
                if damaged:
                    why[source, part] = self._of(source, reason)
                    continue
                full.add((part, rank))
                if rank == self._reader(line, part):
                    needs = f"rank {rank} cannot keep rank {part}'s part: {reason}"
            for move in moves:
                if move.source == rank and failure:
                    why.setdefault((rank, move.part), f"rank {rank} could not send: {failure}")
        if needs:
            raise SetupError(needs)
        members = living(self._peer.transport).members
        came: list[tuple[Move, int, bool]] = []
        for move, to in [(each, to) for each in moves for to in each.to]:
            there = bool(rows[line.members.index(move.part), to])
            if not there and (to not in members or (move.part, to) in full):
                continue
            came.append((move, to, there))
            if not there and (words := why.pop((move.source, move.part), "")):
                self.said.append(f"{words}; another holder is asked")
        return came

    def _tabled(self, line: Line, mine: Sequence[int], *, by_disk: bool = True) -> NDArray[np.bool_]:
        """Who holds which parts, bool of shape (parts, size), by disk or by rank."""
        rows = table(self._peer, [float(part in mine) for part in line.members]).T > 0.5
        if not by_disk:
            return rows
        whole = np.zeros_like(rows)
        for rank in range(self._peer.size):
            whole[:, self._disk[rank]] |= rows[:, rank]
        return whole

    def _share(self, parts: Sequence[int]) -> Sequence[int]:
        """This rank's share of what those who see its disk do there."""
        return parts[self._mates.index(self._peer.rank) :: len(self._mates)]

    def _reader(self, line: Line, part: int) -> int:
        """The rank that goes on with a part, or adds it to the mean."""
        return line.members.index(part) % self._peer.size

    def _lost(self, line: Line, gone: Sequence[int]) -> str:
        """What is lost with the parts that no disk holds whole; "" if there are none."""
        if not gone:
            return ""
        words = self._damage.get((line.step, gone[0]), "")
        if words in self.said:
            self.said.remove(words)
        return words or f"{self._store.path(line.step, gone[0])} is whole on no disk"

    def _everywhere(self) -> str:
        return " on every rank's disk" if len(set(self._disk)) > 1 else ""

    def _of(self, rank: int, words: str) -> str:
        """Words about a disk, with one of its ranks where there is more than one."""
        return words if len(set(self._disk)) == 1 else f"rank {self._disk[rank]}'s disk: {words}"


def _line(manifest: Mapping[str, Any]) -> Line:
    past = [manifest[name] for name in ("size", "members", "history", "config")]
    digest = sha256(json.dumps(past).encode()).hex()[:16]
    return Line(manifest["step"], len(manifest["history"]), tuple(manifest["members"]), digest)


def _fields(line: Line) -> list[Any]:
    return [line.step, line.age, list(line.members), line.past]


def _all(digests: Mapping[str, set[int]]) -> set[int]:
    return set().union(*digests.values())


def _summary(line: Line, fetched: Sequence[int], copied: int) -> str:
    who = f"{'s' if len(fetched) > 1 else ''} {', '.join(map(str, fetched))}"
    came = f"what rank{who} had came from other disks" if fetched else ""
    made = f"{copied} cop{'y was' if copied == 1 else 'ies were'} made again" if copied else ""
    return f"checkpoint of step {line.step}: {' and '.join(filter(None, (came, made)))}"
