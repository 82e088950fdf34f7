"""Scenario 25 on the chain's side: newcomers, lying peers, and forks signed by keys of the past."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.consensus.block import Block, Header
from pydec.consensus.certificate import QuorumCertificate
from pydec.consensus.light import LightClient, decode_step, encode_step
from pydec.consensus.replay import Replay
from pydec.consensus.signed import Kind, signed_bytes
from pydec.consensus.state import snapshot
from pydec.consensus.transactions import Join, Leave, Stake, Transfer
from pydec.errors import FrameError, LedgerError
from tests.consensus.world import BOTH, World, account, genesis, key


@pytest.fixture(scope="module")
def world() -> World:
    """Nine blocks, four epochs; the old half of the stake is replaced by new members."""
    chain = World(genesis(*(account(name, balance=300) for name in "abcdef")), real=True)
    chain.run("a", Transfer(key("x").public, 100))
    chain.run("b", Transfer(key("y").public, 100))
    chain.run("x", Join(BOTH, 100, "at:x"))
    chain.add()
    chain.run("d", Leave())
    chain.run("e", Leave())
    chain.run("y", Join(BOTH, 90, "at:y"))
    chain.add()
    chain.run("a", Transfer(key("b").public, 5))
    return chain


def replayed(world: World) -> Replay:
    replay = Replay(world.genesis)
    for height in range(1, len(world.blocks) + 1):
        replay.add(world.record(height))
    return replay


def newcomer(world: World, **options) -> LightClient:
    return LightClient(world.chain_id, world.genesis.state().table, **options)


def test_a_newcomer_follows_the_epochs_and_takes_a_snapshot(world):
    replay = replayed(world)
    assert [step.header.height for step in replay.steps] == [3, 5, 6, 7]
    client = newcomer(world)
    client.follow(decode_step(encode_step(step)) for step in replay.steps)
    block, commit = world.blocks[-1]
    client.head_at(block.header, commit)
    assert (client.height, client.table) == (9, world.state.table)
    state = client.state(snapshot.encode(world.state))
    assert state == world.state
    assert state.execute(world.header(), []).root() == world.state.execute(world.header(), []).root()


def test_lying_peers_are_found_out(world):
    steps = replayed(world).steps
    other_table = replace(steps[0].table, validators=steps[0].table.validators[1:])
    votes = steps[0].commit
    few = replace(votes, bitmap=b"\x07", signatures=votes.signatures[:3])
    lies = [
        (replace(steps[0], table=other_table), "the table is not the one that the block names"),
        (
            replace(steps[0], header=replace(steps[0].header, state_root=bytes(32))),
            "the certificate is for another",
        ),
        (replace(steps[0], commit=few), "is no quorum"),
        (
            replace(steps[0], commit=replace(votes, signatures=votes.signatures[::-1])),
            "signer 0 did not sign",
        ),
        (replace(steps[0], commit=steps[1].commit), "not COMMIT of 0, 3"),
        (replace(steps[0], header=replace(steps[0].header, chain_id=bytes(32))), "of chain 0000.*, not of"),
        (steps[1], "of epoch 1, but epoch 0 decides next"),
    ]
    for lie, message in lies:
        client = newcomer(world)
        with pytest.raises(LedgerError, match=message):
            client.follow([lie])
        assert client.height == 0
        client.follow(steps)  # and then from an honest one
        assert client.height == 7


def test_snapshots_are_checked_against_the_head(world):
    client = newcomer(world)
    with pytest.raises(LedgerError, match="no block was accepted"):
        client.state(b"")
    client.follow(replayed(world).steps)
    client.head_at(*head(world))
    good = snapshot.encode(world.state)
    rich = replace(
        world.state, accounts={**world.state.accounts, key("a").public: replace(world.of("a"), balance=1)}
    )
    for data, message in [
        (snapshot.encode(rich), r"height 9: the snapshot of height 9 has root .*, the chain says"),
        (snapshot.encode(world.genesis.state()), "the snapshot of height 0 has root"),
        (good[:-1], "a snapshot ends after"),
        (good + b"\0", "after its end"),
        (bytes(100), "a snapshot ends after 100 bytes"),
    ]:
        with pytest.raises(LedgerError, match=message):
            client.state(data)
    assert client.state(good) == world.state


def head(world: World) -> tuple[Header, QuorumCertificate]:
    block, commit = world.blocks[-1]
    return block.header, commit


def test_an_epoch_cannot_be_skipped_as_a_plain_head(world):
    client = newcomer(world)
    header, commit = world.blocks[2][0].header, world.blocks[2][1]
    with pytest.raises(LedgerError, match="the block changes the validators; follow its epoch step"):
        client.head_at(header, commit)


@pytest.fixture(scope="module")
def fork(world) -> World:
    """A longer chain by the keys of the genesis, which have left or sold their stake by now."""
    chain = World(world.genesis, real=True)
    chain.run("a", Transfer(key("z").public, 50))
    chain.run("a", Stake(0, 1))
    chain.run("b", Stake(0, 1))
    for _ in range(20):
        chain.add()
    return chain


def test_who_accepted_a_block_never_takes_it_back(world, fork):
    client = newcomer(world)
    client.follow(replayed(world).steps)
    forged = replayed(fork).steps
    with pytest.raises(
        LedgerError, match=r"height 2: not above 7, where this node accepted .* never taken back"
    ):
        client.follow(forged)
    with pytest.raises(LedgerError, match="of epoch 2, but epoch 4 decides next"):
        client.head_at(*head(fork))
    assert client.height == 7


def test_a_pinned_hash_keeps_the_fork_out(world, fork):
    pins = {7: world.blocks[6][0].header.hash()}
    client = newcomer(world, pins=pins)
    client.follow(replayed(fork).steps)  # up to height 3: the pin is not reached yet
    with pytest.raises(LedgerError, match="the block of the pinned height 7 must be shown before it"):
        client.head_at(*head(fork))
    client = newcomer(world, pins={2: world.blocks[1][0].header.hash()})
    with pytest.raises(LedgerError, match=r"height 2: block .* where .* is pinned: a fork of the chain"):
        client.follow(replayed(fork).steps)
    client = newcomer(world, pins=pins)
    client.follow(replayed(world).steps)
    client.head_at(*head(world))
    assert client.height == 9


def test_without_a_pin_old_keys_do_deceive_a_newcomer(world, fork):
    """Why the pin is there: nothing else tells the two pasts apart (weak subjectivity)."""
    client = newcomer(world)
    client.follow(replayed(fork).steps)
    assert client.height == 3


def test_a_start_at_a_pinned_block_needs_no_past(world):
    block = world.blocks[6][0]
    table = replayed(world).steps[3].table
    client = LightClient.at(block.header, table, block.header.hash())
    client.head_at(*head(world))
    assert client.state(snapshot.encode(world.state)) == world.state
    with pytest.raises(LedgerError, match="the pinned block is"):
        LightClient.at(block.header, table, bytes(32))
    with pytest.raises(LedgerError, match="names another table"):
        LightClient.at(block.header, world.genesis.state().table, block.header.hash())


def test_steps_have_one_encoding(world):
    data = encode_step(replayed(world).steps[0])
    for length in range(0, len(data), 7):
        with pytest.raises(FrameError):
            decode_step(data[:length])
    with pytest.raises(FrameError):
        decode_step(data + b"\0")


def test_replay_refuses_what_does_not_follow(world):
    replay = Replay(world.genesis)
    replay.add(world.record(1))
    block, commit = world.blocks[1]
    changed = Block(replace(block.header, state_root=bytes(32)), block.transactions)
    wrong = replace(commit, block_hash=changed.header.hash())
    message = signed_bytes(Kind.COMMIT, world.chain_id, 0, 2, 0, changed.header.hash())
    keys = [world.voter(v) for v in world.genesis.state().table.validators]
    resigned = replace(wrong, signatures=tuple(k.sign(message) for k in keys))
    for decided, certificate, reason in [
        (block, replace(commit, signatures=(bytes(64), *commit.signatures[1:])), "signer 0 did not sign it"),
        (changed, commit, "the certificate is for another block"),
        (changed, wrong, "signer 0 did not sign it"),
        (changed, resigned, "a block whose state root is not what its transactions give"),
        (Block(block.header, ()), commit, "are not its header's"),
        (world.blocks[2][0], world.blocks[2][1], "not COMMIT of 0, 2"),
    ]:
        keep = world.blocks[1]
        world.blocks[1] = (decided, certificate)
        data = world.record(2)
        world.blocks[1] = keep
        with pytest.raises(LedgerError, match=rf"^height 2: .*{reason}"):
            replay.add(data)
    for data in (b"", world.record(2)[:-1], world.record(2) + b"\0", bytes(100)):
        with pytest.raises(LedgerError, match=r"^height 2: "):
            replay.add(data)
    replay.add(world.record(2))
    assert replay.head == world.blocks[1][0].header.hash()
