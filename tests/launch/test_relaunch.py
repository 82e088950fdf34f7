"""A job is started again where a host was lost, and only there."""

from __future__ import annotations

import os
import random
import signal
import sys

import pytest

from pydec.errors import ConfigError
from pydec.launch import relaunch
from pydec.launch.relaunch import Plan, Relauncher, delay_s, option, place, resumed, with_sealing
from pydec.launch.supervise import Outcome, Supervisor

pytestmark = pytest.mark.timeout(60)
LOST = Outcome(1, "pydec: error: host b was lost", fault=True)
DONE = Outcome(0)


class Script:
    """Stands for mpirun: the outcome of each start, and what it was started with."""

    def __init__(self, *outcomes):
        self.outcomes, self.starts = list(outcomes), []

    def __call__(self, number, ranks, hosts, signals):
        self.starts.append((number, ranks, dict(hosts)))
        return self.outcomes[min(number, len(self.outcomes) - 1)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(relaunch, "FIRST_S", 0.001)


def last(capfd):
    return capfd.readouterr().err.splitlines()[-1]


def test_lost_once_then_done():
    script = Script(LOST, DONE)
    plan = Plan(4, {"a": 2, "b": 2})
    assert Relauncher(plan, script, lambda hosts, signals: {"a"}).run() == 0
    assert script.starts == [(0, 4, {"a": 2, "b": 2}), (1, 2, {"a": 2})]


def test_a_spare_host_takes_the_place_of_a_lost_one_and_a_host_comes_back():
    script = Script(LOST, LOST, DONE)
    answers = iter([{"a", "s", "t"}, {"a", "b", "s", "t"}])
    plan = Plan(4, {"a": 2, "b": 2}, {"s": 4, "t": 4})
    assert Relauncher(plan, script, lambda hosts, signals: next(answers)).run() == 0
    assert script.starts[1:] == [(1, 4, {"a": 2, "s": 4}), (2, 4, {"a": 2, "b": 2})]


def test_the_ranks_of_hosts_that_are_left_keep_their_numbers():
    plan = Plan(6, {"a": 2, "b": 2, "c": 2}, {"s": 2, "t": 1, "u": 1})
    assert list(place(plan, {"a", "c", "s", "t"})[1]) == ["a", "s", "c"]
    ranks, hosts = place(plan, {"b", "c", "t", "u"})
    assert (ranks, list(hosts)) == (6, ["t", "b", "c", "u"])
    assert place(plan, {"a", "c"}) == (4, {"a": 2, "c": 2})


def test_it_gives_up_with_the_reason_last(capfd):
    script = Script(LOST)
    assert Relauncher(Plan(2, max_restarts=2), script, lambda hosts, signals: set()).run() == 1
    assert len(script.starts) == 3
    assert last(capfd) == (
        "pydec: error: gave up after 2 restarts without a newer checkpoint: host b was lost"
    )


def test_a_newer_checkpoint_resets_the_count():
    script = Script(*[LOST] * 5, DONE)
    steps = iter([0, 0, 10, 10, 20, 20])
    assert Relauncher(Plan(2, max_restarts=2), script, lambda *_: set(), lambda: next(steps)).run() == 0
    assert len(script.starts) == 6


@pytest.mark.parametrize(
    "outcome", [DONE, Outcome(2, "pydec: error: x"), Outcome(1, "pydec: error: x"), Outcome(143, "stopped")]
)
def test_what_another_start_does_not_mend_is_final(outcome):
    script = Script(outcome)
    assert Relauncher(Plan(2), script, lambda *_: set()).run() == outcome.status
    assert len(script.starts) == 1


def test_no_restarts_are_asked_for(capfd):
    assert Relauncher(Plan(2, max_restarts=0), Script(LOST), lambda *_: set()).run() == 1
    assert last(capfd) == "pydec: error: host b was lost"


def test_too_few_slots_are_left(capfd):
    plan = Plan(4, {"a": 2, "b": 2}, min_ranks=3)
    assert Relauncher(plan, Script(LOST), lambda *_: {"a"}).run() == 1
    assert last(capfd) == (
        "pydec: error: 2 slots are left, fewer than --min-ranks 3: no answer from b (host b was lost)"
    )


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_between_starts_ends_it_at_once(signum, status, monkeypatch, capfd):
    monkeypatch.setattr(relaunch, "FIRST_S", 50.0)
    paused = []  # the second pause is the first that takes time

    def write(data):
        paused.append(data)
        if len(paused) == 3:  # two pauses, and a start between them
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(relaunch, "write", write)
    script = Script(LOST)
    assert Relauncher(Plan(2), script, lambda *_: set()).run() == status
    assert len(script.starts) == 2
    assert last(capfd) == f"pydec: stopped by {signal.Signals(signum).name}"


def test_a_real_process_that_is_lost_once(tmp_path):
    code = (
        f"import os, pathlib; p = pathlib.Path({str(tmp_path / 'was')!r})\n"
        "if not p.exists(): p.touch(); os.kill(os.getpid(), 9)"
    )

    def start(number, ranks, hosts, signals):
        return Supervisor([sys.executable, "-c", code], os.environ).outcome(signals)

    assert Relauncher(Plan(2), start, lambda *_: set()).run() == 0


def test_pauses_double_up_to_a_minute_and_differ_between_jobs(monkeypatch):
    monkeypatch.setattr(relaunch, "FIRST_S", 1.0)
    pauses = [delay_s(restart, random.Random(restart)) for restart in range(1, 40)]
    for restart, pause in enumerate(pauses, 1):
        usual = min(2.0 ** (restart - 2), 60.0) if restart > 1 else 0.0
        assert 0.75 * usual <= pause <= 1.25 * usual
    assert delay_s(3, random.Random(1)) == delay_s(3, random.Random(1)) != delay_s(3, random.Random(2))


def test_ranks_never_exceed_slots_nor_what_was_asked_for():
    plan = Plan(5, {"a": 2, "b": 2, "c": 2}, {"s": 2})
    assert place(plan, {"a", "b", "c", "s"}) == (5, {"a": 2, "b": 2, "c": 2})
    assert place(plan, {"a", "c"}) == (4, {"a": 2, "c": 2})
    assert place(plan, {"c", "s"}) == (4, {"c": 2, "s": 2})
    assert place(plan, set()) == (0, {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_ranks": 5}, "--min-ranks must be from 1 to -n 4, got 5"),
        ({"min_ranks": 0}, "got 0"),
        ({"max_restarts": -1}, "--max-restarts must be at least 0, got -1"),
        ({"spares": {"s": 1}}, "name these with --hosts"),
        ({"hosts": {"a": 4}, "spares": {"a": 1}}, "--spare a is among the hosts"),
    ],
)
def test_a_plan_that_cannot_be_met_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Plan(4, **options)


def test_a_run_goes_on_by_its_directory_alone():
    command = ("py", "-m", "pydec", "train", "stdlib-lm", "--steps", "9", "--quiet", "--run-dir", "R")
    assert resumed(command, "R") == ("py", "-m", "pydec", "train", "--resume", "R", "--quiet")
    assert resumed(resumed(command, "R"), "R") == resumed(command, "R")
    assert resumed(command[:7], "R") == ("py", "-m", "pydec", "train", "--resume", "R")


def test_a_host_that_is_new_to_a_run_is_told_how_its_messages_are_sealed():
    start = ("py", "-m", "pydec", "train")
    words = ("--secure", "on", "--key=env:K", "--peers", "p.txt", "--pad", "--ledger", "L")
    kept = ("--secure", "on", "--key", "env:K", "--peers", "p.txt", "--ledger", "L", "--pad")
    assert resumed((*start, "stdlib-lm", *words, "--run-dir", "R"), "R") == (*start, "--resume", "R", *kept)
    saved = {
        "secure": "on",
        "key": "a.key",
        "passphrase_from": "env:P",
        "ledger": "",
        "pad": True,
        "steps": 9,
    }
    again = with_sealing((*start, "--resume", "R", "--key", "b.key"), saved)
    assert again[6:] == ("--key", "b.key", "--secure", "on", "--passphrase-from", "env:P", "--pad")
    assert resumed(with_sealing(again, saved), "R")[6:] == (
        "--secure", "on", "--key", "b.key", "--passphrase-from", "env:P", "--pad",
    )  # fmt: skip
    assert with_sealing(start, {}) == start


def test_options_are_found_in_both_forms():
    assert option(["train", "--run-dir", "A"], "--run-dir") == "A"
    assert option(["train", "--run-dir=A", "--run-dir=B"], "--run-dir") == "B"
    assert option(["train", "--run-dir"], "--run-dir") == ""
    assert option(["train"], "--run-dir") == ""
