"""The driver on the local cluster, with real files: commits, restarts, failures, and who waits for whom."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from pydec.comm.local import LocalCluster, solo
from pydec.comm.transport import Stream
from pydec.consensus import effects, handover, newcomer
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.file_storage import FileStorage, create
from pydec.consensus.genesis import Genesis
from pydec.consensus.hello import Greeter
from pydec.consensus.messages import Transaction, Vote, encode
from pydec.consensus.node import founders, open_node
from pydec.consensus.replica import Member
from pydec.consensus.roles import Role
from pydec.consensus.signed import Kind, signed_bytes
from pydec.consensus.state.parts import Account
from pydec.consensus.storage import MemoryStorage
from pydec.consensus.transactions import Beacon, Config, sign
from pydec.crypto.signing import SigningKey
from pydec.errors import AccessDenied, ConfigError, LedgerError, TransactionError

KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 8)]


def genesis(size):
    return founders("test", [key.public for key in KEYS[:size]])


def beacon(driver, rank, more=1):
    account = driver.state.accounts[KEYS[rank].public]
    return sign(KEYS[rank], driver.state.chain_id, account.sequence, Beacon(account.round + more))


def opened(transport, folder, **options):
    path = folder / f"rank-{transport.rank}"
    create(path, genesis(transport.size))
    return open_node(transport, path, KEYS[transport.rank], **options)


def linger(driver, transport, seconds):
    """Go on for a time, as ranks do while others are at work."""
    until_s = transport.now() + seconds
    while transport.now() < until_s:
        driver.tick()


@pytest.mark.parametrize(
    "faults", [{"delay_s": 0.001}, {"delay_s": (0.0, 0.01), "loss": 0.05, "reorder": 0.1}]
)
def test_everybody_commits_and_restarts_where_it_was(tmp_path, faults):
    def program(transport):
        with opened(transport, tmp_path) as driver:
            before = driver.head[0]
            for _ in range(3):
                (receipt,) = driver.wait([driver.submit(beacon(driver, transport.rank))], 60.0)
                assert receipt.height > before
            linger(driver, transport, 5.0)
            assert driver.failure is None
            return driver.head, driver.state.root(), tuple(driver.reports)

    first = LocalCluster(4, seed=3, **faults).run(program)
    assert len(set(first)) == 1
    assert first[0][0][0] >= 3
    assert first[0][2] == ()  # the honest are never reported
    second = LocalCluster(4, seed=4, **faults).run(program)
    assert len(set(second)) == 1
    assert second[0][0][0] > first[0][0][0]


def test_who_may_not_is_denied_by_name_counted_and_the_others_go_on(tmp_path, caplog):
    """Rank 2 only observes: nobody takes its change of options or its vote."""
    accounts = [
        Account(key.public, key.public, f"rank:{rank}", int(roles), int(roles), stake=stake)
        for rank, key in enumerate(KEYS[:3])
        for roles, stake in (((Role.TRAINER | Role.VALIDATOR, 100), (Role.OBSERVER, 0))[rank == 2],)
    ]
    start = Genesis("test", tuple(sorted(accounts, key=lambda account: account.node_id)))

    def program(transport):
        rank = transport.rank
        create(tmp_path / f"rank-{rank}", start)
        with open_node(transport, tmp_path / f"rank-{rank}", KEYS[rank]) as driver:
            chain_id = start.chain_id
            if rank == 2:
                linger(driver, transport, 1.0)
                change = sign(KEYS[2], chain_id, 0, Config((("f", "1"),)))
                with pytest.raises(AccessDenied, match="may not change options: it needs the role admin"):
                    driver.wait([driver.submit(change)], 5.0)
                signature = KEYS[2].sign(signed_bytes(Kind.PREPARE, chain_id, 0, 1, 0, bytes(32)))
                vote = Vote(Kind.PREPARE, 0, 1, 0, bytes(32), 0, signature)
                for message in (Transaction(change), vote):
                    driver._perform([effects.Send(KEYS[0].public, encode(message, chain_id))])
            linger(driver, transport, 2.0)
            if rank < 2:
                driver.wait([driver.submit(beacon(driver, rank))], 60.0)
            linger(driver, transport, 2.0)
            assert driver.head[0] >= 1
            assert not driver.reports
            return [(denied["action"], denied["count"]) for denied in driver.gate.summary()]

    denied = LocalCluster(3, seed=3, delay_s=0.001).run(program)
    assert denied == [[("change options", 1), ("vote and propose", 1)], [], [("change options", 1)]]
    assert caplog.text.count("may not vote and propose: it needs a place among the validators") == 1


def test_a_dead_peer_blocks_nobody_and_catches_up_after_its_restart(tmp_path):
    def program(transport, dead):
        with opened(transport, tmp_path) as driver:
            if transport.rank == dead:
                return driver.head
            driver.wait([driver.submit(beacon(driver, transport.rank))], 60.0)
            linger(driver, transport, 3.0)
            return driver.head

    heads = LocalCluster(4, delay_s=0.001).run(lambda transport: program(transport, 3))
    assert heads[3][0] < heads[0][0]
    assert len(set(heads[:3])) == 1
    assert len(set(LocalCluster(4, delay_s=0.001).run(lambda transport: program(transport, None)))) == 1


def test_a_rank_far_behind_goes_on_from_a_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "SPACING", 4)
    monkeypatch.setattr(newcomer, "FAR", 8)
    serve = Driver._serve  # blocks before the snapshot are lost, as if there were very many of them
    monkeypatch.setattr(Driver, "_serve", lambda self, wanted: wanted.first > 8 and serve(self, wanted))

    def program(transport, late):
        with opened(transport, tmp_path) as driver:
            while transport.rank != late and driver.head[0] < 10:
                driver.wait([driver.submit(beacon(driver, transport.rank))], 60.0)
            linger(driver, transport, 3.0)
            return driver.head, driver.state.root(), tuple(driver.reports)

    LocalCluster(4, delay_s=0.001).run(lambda transport: transport.rank == 3 or program(transport, 3))
    found = LocalCluster(4, delay_s=0.001).run(lambda transport: program(transport, 3))
    assert len(set(found)) == 1
    assert found[0][2] == ()
    with FileStorage(tmp_path / "rank-3", KEYS[3].public) as storage:
        assert storage.base.height >= 8
        assert storage.head == found[0][0][0]


def test_an_idle_ledger_sends_nothing(tmp_path):
    def program(transport):
        with opened(transport, tmp_path) as driver:
            driver.wait([driver.submit(beacon(driver, transport.rank))], 60.0)
            linger(driver, transport, 5.0)
            before = transport.stream(Stream.LEDGER).bytes_sent
            linger(driver, transport, 20.0)
            return transport.stream(Stream.LEDGER).bytes_sent - before

    assert LocalCluster(4, delay_s=0.001).run(program) == [0] * 4


def test_one_rank_alone_decides_at_once(tmp_path):
    transport = solo()
    with opened(transport, tmp_path) as driver:
        heard: list[int] = []
        end = driver.subscribe(lambda committed: heard.append(committed.block.height))
        future = driver.submit(beacon(driver, 0))
        assert driver.wait([future], 10.0) == [Receipt(1, driver.head[1])]
        end()
        driver.wait([driver.submit(beacon(driver, 0))], 10.0)
        assert heard == [1]
        assert driver.state.height == 2


def test_refused_transactions_and_raising_subscribers_are_told(tmp_path):
    def bad(committed):
        raise ArithmeticError("bad subscriber")

    with opened(solo(), tmp_path) as driver:
        driver.subscribe(bad)
        good = beacon(driver, 0)
        again = beacon(driver, 0, more=9)  # with the same sequence number: only one of the two can pass
        with pytest.raises(TransactionError):
            driver.wait([driver.submit(b"nonsense")], 10.0)
        first, second = driver.submit(good), driver.submit(again)
        driver.wait([first], 10.0)
        with pytest.raises(TransactionError):
            driver.wait([second], 10.0)
        assert any("bad subscriber" in line for line in driver.reports)
    with pytest.raises(LedgerError, match="was closed"):
        driver.submit(good).result(1.0)


def test_without_a_quorum_a_wait_ends_with_the_reason(tmp_path):
    def program(transport):
        with opened(transport, tmp_path) as driver:
            if transport.rank < 2:
                return
            with pytest.raises(LedgerError, match="a third of the stake, or more, do not answer"):
                driver.wait([driver.submit(beacon(driver, transport.rank))], 5.0)

    LocalCluster(4, delay_s=0.001).run(program)


class Scripted:
    """A replica that answers a submission with prepared effects."""

    def __init__(self, script):
        self.member = Member(bytes(32), KEYS[0].public, KEYS[0])
        self.state, self.head, self.script = None, (bytes(32), None), script

    def start(self, restored):
        return []

    def submit(self, transaction):
        return self.script


class Recording(MemoryStorage):
    """Storage that writes down the order of calls, and fails if told."""

    def __init__(self, log, full=False):
        super().__init__()
        self.log, self.full = log, full

    def persist(self, record):
        if self.full:
            raise LedgerError("/ledger/safety cannot be written: the disk is full")
        self.log.append("persist")


@pytest.mark.parametrize("full", [False, True])
def test_nothing_leaves_before_what_must_be_durable_is(full):
    log: list[str] = []

    class Link:
        rank, size = 0, 2

        def now(self):
            return 0.0

        def post(self, peer, data):
            if data[1:] == b"vote":
                log.append("send")

        def poll(self):
            return None

    script = [effects.Persist(b""), effects.Send(KEYS[1].public, b"vote")]
    greeter, other = Greeter(KEYS[0], bytes(32), 0, 1), Greeter(KEYS[1], bytes(32), 1, 1)
    greeter.receive(1, other.receive(0, greeter.ask(1)))
    driver = Driver(Link(), Scripted(script), Recording(log, full), greeter, start=False)
    future: Future[Receipt] = driver.submit(b"tx")
    driver.tick()
    assert log == ([] if full else ["persist", "send"])
    if full:
        assert driver.failure == "/ledger/safety cannot be written: the disk is full"
        with pytest.raises(LedgerError, match="has stopped: /ledger/safety cannot be written"):
            future.result(0)
        with pytest.raises(LedgerError, match="disk is full"):
            driver.submit(b"another").result(0)


def test_two_ranks_with_one_key_are_named():
    with pytest.raises(ConfigError, match="ranks 1 and 2 have the same key"):
        founders("test", [KEYS[0].public, KEYS[1].public, KEYS[1].public])


def test_a_directory_is_held_by_one_node(tmp_path):
    with opened(solo(), tmp_path), pytest.raises(LedgerError, match="one process per key"):
        opened(solo(), tmp_path)
    FileStorage(tmp_path / "rank-0", KEYS[0].public).close()
