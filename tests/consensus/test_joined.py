"""What a node may sign after a snapshot, and what a crash or damage leaves of one on disk."""

from __future__ import annotations

import errno
import functools

import pytest

from pydec.consensus import handover
from pydec.consensus.catchup import Bar
from pydec.consensus.effects import Broadcast, Install
from pydec.consensus.file_storage import FileStorage, create
from pydec.consensus.member import Member
from pydec.consensus.messages import Head, Proposal, Vote, decode, encode
from pydec.consensus.newcomer import voted_until
from pydec.consensus.replay import Replay, recover
from pydec.consensus.replica import Replica
from pydec.consensus.signed import Kind, signed_bytes
from pydec.consensus.transactions import Beacon, Stake
from pydec.errors import LedgerError
from tests.consensus.cluster import LEDGER
from tests.consensus.lossy_disk import Crash, LossyDisk
from tests.consensus.world import World, genesis, key


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Snapshots of many small pieces."""
    monkeypatch.setattr(handover, "SPACING", 4)
    monkeypatch.setattr("pydec.consensus.state.streams.PIECE_BYTES", 256)


@functools.cache  # made by the first test: pieces must be as small as theirs
def world() -> World:
    chain = World(genesis(), real=True)
    for number in range(9):
        chain.run("abcd"[number % 4], Stake(0, 1) if number % 3 == 2 else Beacon(number + 1))
    return chain


# ---------------------------------------------------------------- votes that are forgotten


class VotesAtOnce(Replica):
    """Votes after a snapshot whatever its key may have signed elsewhere."""

    def adopt(self, effect):
        self._signed = effect.height
        return super().adopt(effect)


def adopting(kind: type[Replica]) -> tuple[Replica, list[object], int]:
    """A node with a new directory and a key of the genesis, at a snapshot; its votes then; its index."""
    chain = world()
    replay = Replay(chain.genesis)
    for height in range(1, 9):
        replay.add(chain.record(height))
    table, state = replay.state.table, replay.state
    index = (state.leader + 1) % len(table)
    voter = chain.voter(table[index])
    replica = kind(Member(chain.chain_id, voter.public, voter), chain.genesis.state(), (chain.chain_id, None))
    replica.start()
    block, commit = chain.blocks[7]
    voted = voted_until(state, commit.signers(), voter.public)
    replica.adopt(Install(b"", (), block.header, commit, state, voted))
    assert (replica.state.height, voted) == (8, 8)
    return replica, propose(replica, chain), index


def propose(replica: Replica, chain: World) -> list[object]:
    """What a replica says to the leader's proposal of the ninth block."""
    state = replica.state
    block = chain.blocks[8][0]
    leader = state.table[state.leader]
    text = signed_bytes(Kind.PROPOSAL, chain.chain_id, state.table.epoch, 9, 0, block.header.hash())
    signature = chain.voter(leader).sign(text)
    message = Proposal(state.table.epoch, 9, 0, block.encode(), None, None, signature)
    done = replica.receive(leader.node_id, encode(message, chain.chain_id))
    sent = [decode(effect.data, chain.chain_id) for effect in done if isinstance(effect, Broadcast)]
    return [message for message in sent if isinstance(message, Vote)]


def test_a_key_whose_votes_are_forgotten_waits_until_a_quorum_has_gone_on():
    replica, votes, index = adopting(Replica)
    assert votes == []
    for other, validator in enumerate(replica.state.table.validators):
        if other != index:
            head = Head(replica.state.table.epoch, 8, replica.head[0])
            replica.receive(validator.node_id, encode(head, world().chain_id))
    assert propose(replica, world()) == []
    assert not replica.bar.waiting
    replica.receive(key("a").public, world().record(9))
    assert (replica.state.height, replica.height.signer is None) == (9, replica.bar.allows(10) is False)


class Credulous(Bar):
    """Takes a new directory for a new key, whatever the chain shows."""

    def shown(self, height):
        return False


@pytest.mark.parametrize("forgets", [False, True])
def test_so_does_one_that_replays_its_own_votes_into_a_new_directory(forgets):
    class Forgets(Replica):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.bar = Credulous(lost=False)

    chain, kind = world(), Forgets if forgets else Replica
    voter = key("d")
    replica = kind(Member(chain.chain_id, voter.public, voter), chain.genesis.state(), (chain.chain_id, None))
    replica.start()
    asked = 0
    for height in range(1, 10):
        done = replica.receive(key("a").public, chain.record(height))
        asked += sum(isinstance(effect, Broadcast) for effect in done)
    assert replica.state.height == 9
    assert (replica.height.signer is not None) == forgets
    assert asked == (0 if forgets else 1)  # once, and again by its timer
    if not forgets:
        for name in "abc":
            head = Head(replica.state.table.epoch, 9, replica.head[0])
            replica.receive(key(name).public, encode(head, chain.chain_id))
        assert [replica.bar.allows(height) for height in (10, 11, 12)] == [False, False, True]


def test_without_that_rule_it_contradicts_itself():
    """The mutant prepares a block at a height at which its lost record may say another one."""
    replica, votes, _ = adopting(VotesAtOnce)
    assert [vote.kind for vote in votes] == [Kind.PREPARE]
    assert replica.member.node_id != replica.state.table[replica.state.leader].node_id


# ---------------------------------------------------------------- the disk


def installing(disk: LossyDisk) -> FileStorage:
    """A node that has two blocks and gets the snapshot of height 8."""
    create(LEDGER, world().genesis, disk)
    storage = FileStorage(LEDGER, key("e").public, disk)
    for height in (1, 2):
        storage.append(height, world().record(height))
    return storage


@pytest.mark.parametrize("error", [None, errno.ENOSPC])
def test_a_crash_at_any_write_leaves_the_old_ledger_or_the_new_one(error):
    found = set()
    number = 0
    while True:
        disk = LossyDisk(seed=number)
        storage = installing(disk)
        disk.calls, disk.fail_at, disk.error = 0, number, error
        try:
            storage.install(*world().snapshot(8))
            done = True
        except (Crash, LedgerError):
            done = False
        disk.crash()
        storage = FileStorage(LEDGER, key("e").public, disk)
        replay = recover(storage, world().genesis)
        assert (storage.base.height, storage.head) in ((0, 2), (8, 8))
        assert storage.epochs == replay.state.table.epoch
        assert replay.state.height == storage.head
        found.add(storage.head)
        if done:
            assert storage.head == 8
            storage.append(9, world().record(9))
            assert recover(storage, world().genesis).state == world().state
            break
        number += 1
    assert found == {2, 8}


def test_a_damaged_snapshot_is_refused(tmp_path):
    create(tmp_path / "ledger", world().genesis)
    with FileStorage(tmp_path / "ledger", key("e").public) as storage:
        storage.install(*world().snapshot(8))
    path = tmp_path / "ledger" / "snapshot"
    good = path.read_bytes()
    for data in (good[:-1], good[:20] + bytes([good[20] ^ 1]) + good[21:], b"", b"x" + good[1:]):
        path.write_bytes(data)
        with pytest.raises(LedgerError, match=r"snapshot is damaged"):
            FileStorage(tmp_path / "ledger", key("e").public)
