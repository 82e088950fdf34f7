"""A running job takes requests for other numbers of ranks: granted, refused, fallen back, seen through."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict

import pytest

from pydec.comm.words import ALONE, JOINED, NOT_HERE
from pydec.errors import ConfigError, SetupError
from pydec.launch.door import Door, ask, find
from pydec.launch.relaunch import Place, Plan, Relauncher
from pydec.launch.scale import Desk, Request, grant, obstacle
from pydec.launch.supervise import Outcome, Supervisor
from pydec.launch.supervise import Signals as Received

pytestmark = pytest.mark.timeout(60)
LEFT = Outcome(143, "pydec: stopped", left=True)
OPTIONS = {"keep_last": 2, "steps": 100, "ledger": "", "min_ranks": 1}


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run that has begun; doors are below it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"options": OPTIONS}))
    return tmp_path


@pytest.fixture
def desk(run_dir):
    made = Desk(Door(), lambda: str(run_dir), lambda hosts, signals: {"b"}, lambda: 41)
    yield made
    made.finish("over", failed=True)
    made.door.close()


class Client(threading.Thread):
    """Asks as ``pydec scale`` does."""

    def __init__(self, *request):
        super().__init__(daemon=True)
        self.line, self.said, self.result = json.dumps(asdict(Request(*request))), [], None
        self.door = find()
        self.start()

    def run(self):
        try:
            self.result = ask(self.door, self.line, self.said.append)
        except (ConfigError, SetupError) as error:
            self.result = str(error)

    def ended(self):
        self.join(30.0)
        return self.result


def serve(desk, signals, client=None):
    """Take requests as the supervisor does: until this client has its answer, or all that wait."""
    before = desk.change
    while (client.is_alive() and desk.change is before) if client else select.select([desk], [], [], 0)[0]:
        if select.select([desk], [], [], 0.05)[0]:
            desk.serve(signals)


class Job:
    """Stands for the supervisor and its mpirun: what happens at each start."""

    def __init__(self, desk, *acts):
        self.desk, self.acts, self.starts, self.clients = desk, acts, [], []

    def __call__(self, number, ranks, hosts, signals):
        self.starts.append((ranks, dict(hosts)))
        act = self.acts[number]
        if isinstance(act, Outcome):
            return act
        self.desk.stepped()
        if act is not None:
            self.clients.append(Client(*act))
            serve(self.desk, signals, self.clients[-1])
        return LEFT if self.desk.leaving else Outcome(0)

    def run(self, plan):
        return Relauncher(plan, self, lambda *_: set(), self.desk.progress, self.desk).run()


def test_grown_and_shrunk_without_counting_as_restarts(desk, capfd):
    job = Job(desk, ("+1",), ("=1",), None)
    assert job.run(Plan(2, max_restarts=0)) == 0
    assert job.starts == [(2, {}), (3, {}), (1, {})]
    assert [client.ended() for client in job.clients] == [True, True]
    assert job.clients[0].said[:2] == [
        "2 -> 3 ranks: all start again from a checkpoint (no command is known for newcomers)",
        "2 -> 3 ranks, continuing from step 40",
    ]
    assert "first step" in job.clients[0].said[2]
    rows = [{name: row[name] for name in ("step", "from", "to")} for row in desk.scaled]
    assert rows == [{"step": 40, "from": 2, "to": 3}, {"step": 40, "from": 3, "to": 1}]
    assert all(row["time_s"] >= 0 for row in desk.scaled)
    assert [line for line in capfd.readouterr().err.splitlines() if "continuing" in line] == [
        "pydec: 2 -> 3 ranks, continuing from step 40",
        "pydec: 3 -> 1 ranks, continuing from step 40",
    ]


def test_the_old_number_goes_on_where_the_new_one_does_not_start(desk, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])  # every host is known
    job = Job(desk, ("+2", "b:2"), Outcome(1, "pydec: error: no room"), None)
    assert job.run(Plan(2, {"a": 2})) == 0
    assert job.starts == [(2, {"a": 2}), (4, {"a": 2, "b": 2}), (2, {"a": 2})]
    assert job.clients[0].ended() is False
    assert job.clients[0].said[-1] == "4 ranks did not start (no room); going on with 2 from step 40"
    assert desk.scaled == []


def test_a_fall_back_that_fails_too_ends_as_always(desk, capfd):
    job = Job(desk, ("+2",), Outcome(1, "pydec: error: no room"), Outcome(2, "pydec: error: x"))
    assert job.run(Plan(2)) == 2
    assert len(job.starts) == 3
    assert capfd.readouterr().err.splitlines()[-1] == "pydec: error: x"


def test_who_asks_while_a_change_is_under_way_or_before_a_step_is_refused(desk):
    desk.starts(Place(Plan(2), 2, {}))
    signals = Signals()
    early = Client("+1")
    serve(desk, signals, early)
    assert "taken no step" in early.ended()
    desk.stepped()
    first = Client("+1")
    serve(desk, signals, first)
    second = Client("+2")
    serve(desk, signals, second)
    assert second.ended() == (
        "refused: another request is under way (2 -> 3 ranks); ask again when it is done"
    )
    desk.finish("the job was stopped", failed=True)
    assert first.ended() is False
    assert first.said[-1] == "the job was stopped"


class Signals:
    received = ()


def test_a_program_that_is_no_training_reads_the_end_of_its_input(desk):
    desk.run_dir = lambda: ""
    desk.starts(Place(Plan(1), 1, {}))
    code = "import sys; sys.exit(sys.stdin.read() != '')"
    with Received() as signals:
        outcome = Supervisor([sys.executable, "-c", code], os.environ, desk=desk).outcome(signals)
    assert outcome == Outcome(0)


@pytest.mark.parametrize("replaces", [False, True])
def test_survivors_that_cannot_go_on_alone_are_started_again_with_those_that_replace_the_dead(desk, replaces):
    code = (
        "import sys; from pydec.comm.words import say_out, say_stepped\n"
        "say_stepped(0); say_out(1); sys.exit('pydec: error: 1 of 3 members are gone')"
    )
    desk.replaces = replaces
    desk.starts(Place(Plan(3), 3, {}))
    desk.replace_lost = lambda gone, signals: None  # it ends before that is asked for
    with Received() as signals:
        outcome = Supervisor([sys.executable, "-c", code], os.environ, desk=desk).outcome(signals)
    assert (outcome.status, outcome.fault) == (1, replaces)


def test_the_ranks_are_told_how_many_go_on(desk, capfd):
    code = (
        "import signal, sys; from pydec.comm.orders import Orders; from pydec.comm.words import say_stepped\n"
        "def leave(*_): print('told', Orders(0).take(20.0), file=sys.stderr); sys.exit(143)\n"
        "signal.signal(signal.SIGUSR1, leave); say_stepped(0); signal.pause()"
    )
    desk.starts(Place(Plan(3), 3, {}))
    desk.replaces = True
    dead = desk.replace_lost
    desk.replace_lost = lambda gone, signals: dead({1}, signals)
    with Received() as signals:
        outcome = Supervisor([sys.executable, "-c", code], os.environ, desk=desk).outcome(signals)
    assert outcome.left
    assert desk.change.words == "replacing rank 1: 2 -> 3 ranks"
    assert "told 3" in capfd.readouterr().err


@pytest.mark.parametrize(("status", "left"), [(143, True), (1, False)])
def test_the_supervisor_has_the_ranks_leave(desk, status, left):
    code = (
        "import signal, sys; from pydec.comm.words import say_stepped\n"
        f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit({status})); say_stepped(0); signal.pause()"
    )
    desk.starts(Place(Plan(2), 2, {}))
    stepped = desk.stepped

    def ask_then():
        stepped()
        if not clients:
            clients.append(Client("-1"))

    clients: list[Client] = []
    desk.stepped = ask_then
    with Received() as signals:
        outcome = Supervisor([sys.executable, "-c", code], os.environ, desk=desk).outcome(signals)
    assert (outcome.status, outcome.left) == (status, left)


def test_a_signal_in_the_middle_ends_it_as_always(desk):
    def start(number, ranks, hosts, signals):
        desk.stepped()
        clients.append(Client("+1"))
        serve(desk, signals, clients[0])
        os.kill(os.getpid(), signal.SIGTERM)
        return signals.stopped()

    clients: list[Client] = []
    assert Relauncher(Plan(2), start, lambda *_: set(), desk.progress, desk).run() == 143
    desk.finish("the job was stopped", failed=True)
    assert clients[0].ended() is False
    assert clients[0].said[-1] == "the job was stopped"


@pytest.mark.parametrize(
    ("place", "request_", "reason"),
    [
        (Place(Plan(2), 2, {}), ("-2",), "at least 1 rank, and -2 leaves 0 of 2"),
        (Place(Plan(2), 2, {}), ("=2",), "has 2 ranks already"),
        (Place(Plan(4, min_ranks=3), 4, {}), ("-2",), "2 ranks are fewer than --min-ranks 3"),
        (Place(Plan(2, {"a": 2}), 2, {"a": 2}), ("+2",), "4 ranks need as many slots, and a have 2"),
        (Place(Plan(2), 2, {}), ("+2", "x:2"), "--host x: the job's machine knows no such host"),
        (Place(Plan(2), 2, {}), ("-1", "b:2"), "leave it out"),
    ],
)
def test_what_cannot_be_met_is_refused(place, request_, reason):
    with pytest.raises(ConfigError, match=reason):
        grant(place, Request(*request_), lambda host: host != "x")


def test_where_a_changed_job_runs():
    def places(place, *request):
        after = grant(place, Request(*request), lambda host: True)
        return after.ranks, after.hosts, after.plan.hosts, after.plan.spares

    alone, spread = Place(Plan(2), 2, {}), Place(Plan(2, {"a": 2}, {"s": 2}), 2, {"a": 2})
    assert places(alone, "+9") == (11, {}, {}, {})
    assert places(alone, "+1", "b:1") == (3, {"localhost": 2, "b": 1}, {"localhost": 2, "b": 1}, {})
    assert places(spread, "-1") == (1, {"a": 2}, {"a": 2}, {"s": 2})
    assert places(spread, "+2") == (4, {"a": 2, "s": 2}, {"a": 2}, {"s": 2})
    assert places(spread, "=3", "s:1") == (3, {"a": 2, "s": 1}, {"a": 2, "s": 1}, {})
    assert places(spread, "=9", "", True) == (9, {"a": 2, "s": 2}, {"a": 2}, {"s": 2})


def test_the_dead_are_replaced_where_there_is_a_slot_and_ever_more_slowly(desk, monkeypatch, capfd):
    clock = [1000.0]
    monkeypatch.setattr("pydec.launch.scale.time.monotonic", lambda: clock[0])
    desk.starts(Place(Plan(3), 3, {}))
    desk.replace_lost({1}, Signals())
    assert desk.change is None  # nobody asked for it
    desk.replaces = True
    desk.replace_lost({1}, Signals())
    assert desk.change is None  # no step yet
    for _ in range(2):
        desk.stepped()
        desk.replace_lost(set(), Signals())
        assert desk.change is None
        desk.replace_lost({1}, Signals())
        if desk.change is None:  # it died soon after the replacement
            clock[0] += 2.0
            desk.replace_lost({1}, Signals())
        assert desk.change.words == "replacing rank 1: 2 -> 3 ranks"
        assert desk.leaving
        desk.starts(desk.left())
        clock[0] += 5.0
    desk.stepped()
    assert [(row["from"], row["to"], row["replaced"]) for row in desk.scaled] == [(2, 3, [1])] * 2
    assert [row["time_s"] for row in desk.scaled] == [5.0, 5.0]
    desk.replace_lost({1}, Signals())
    assert desk.change is None  # 2 s by now, a quarter more or less
    clock[0] += 3.0
    desk.replace_lost({1}, Signals())
    assert desk.change is not None
    assert "replacing rank 1: 2 -> 3 ranks, continuing from step 40" in capfd.readouterr().err


def test_a_rank_whose_host_is_gone_waits_for_a_slot_and_says_so_once(desk, capfd):
    desk.replaces = True
    desk.starts(Place(Plan(2, {"a": 1, "c": 1}), 2, {"a": 1, "c": 1}))  # only b answers
    desk.stepped()
    for _ in range(2):
        desk._replace_at_s = 0.0
        desk.replace_lost({1}, Signals())
    assert desk.change is None
    assert capfd.readouterr().err == "pydec: rank 1 is not replaced now: no slot is free\n"


@pytest.fixture
def growing(desk):
    """A request for one rank more that is to join the running job, and who waits for it."""
    desk.onward = lambda: ("python", "-m", "pydec", "train", "--resume", "run", "--joins")
    desk.hindrance = ""
    desk.starts(Place(Plan(2), 2, {}))
    desk.stepped()
    client = Client("+1")
    serve(desk, Signals(), client)
    return desk, client


def test_newcomers_join_and_the_job_is_of_so_many_ranks(growing, capfd):
    desk, client = growing
    assert desk.growing
    assert not desk.leaving
    order = json.loads(desk.order().removeprefix(b"pydec growth "))
    assert (order["numbers"], order["crowd"]) == ([2], True)
    assert order["command"] == list(desk.onward())
    assert desk.order() == b""  # once
    desk.stepped()  # by the ranks of before
    desk.hear(JOINED, 70, "")
    assert (desk.place.ranks, desk.growing, desk.leaving) == (3, False, False)
    desk.stepped()
    assert client.ended() is True
    row = desk.scaled[0]
    assert (row["step"], row["from"], row["to"], row["restarted"]) == (70, 2, 3, False)
    assert capfd.readouterr().err == ("pydec: 2 -> 3 ranks, continuing from step 70; newcomers have joined\n")


def test_where_newcomers_do_not_start_the_others_have_gone_on(growing):
    desk, client = growing
    desk.hear(ALONE, 70, "another chain")
    assert client.ended() is False
    assert client.said[1:] == [
        "3 ranks did not start (another chain); going on with 2 from step 70",
        "the job goes on as before",
    ]
    assert (desk.place.ranks, desk.growing, desk.leaving, desk.scaled) == (2, False, False, [])


@pytest.mark.parametrize("late", [False, True])
def test_where_nobody_can_join_the_ranks_leave_as_always(growing, monkeypatch, late):
    desk, client = growing
    if late:
        now_s = time.monotonic() + 1000.0
        monkeypatch.setattr("pydec.launch.scale.time.monotonic", lambda: now_s)
        desk.overdue()
    else:
        desk.overdue()
        desk.hear(NOT_HERE, 0, "no slots")
    assert (desk.growing, desk.leaving) == (False, True)
    desk.hear(JOINED, 70, "")  # too late
    desk.starts(desk.left())
    assert desk.place.ranks == 3
    desk.stepped()
    assert client.ended() is True
    assert desk.scaled[0]["restarted"]
    assert ("did not join within" in client.said[1]) == late


def test_the_dead_do_not_count_among_the_ranks_that_a_request_adds_to(desk):
    desk.starts(Place(Plan(3), 3, {}))
    desk.stepped()
    desk.replace_lost({2}, Signals())
    client = Client("+1")
    serve(desk, Signals(), client)
    assert desk.change.words == "2 -> 3 ranks"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep_last": 0}, "makes no checkpoints"),
        ({"ledger": "L"}, ""),
        ({"min_ranks": 3}, "2 ranks are fewer than --min-ranks 3 of pydec train"),
        ({"steps": 40}, "has taken its last step"),
        ({}, ""),
    ],
)
def test_what_a_run_must_have(run_dir, options, reason):
    (run_dir / "config.json").write_text(json.dumps({"options": OPTIONS | options}))
    assert reason in obstacle(str(run_dir), 2, 40)
    assert bool(reason) == bool(obstacle(str(run_dir), 2, 40))


def test_nonsense_at_the_door_changes_nothing(desk):
    desk.starts(Place(Plan(2), 2, {}))
    desk.stepped()
    for said in (b"{}\n", b"\xff\n", b"[]\n", b'{"count": "+1", "hosts": "", "oversubscribe": 0', b""):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(find()))
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            serve(desk, Signals())
    assert desk.change is None
