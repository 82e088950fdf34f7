"""Who may ask a job with a ledger for other ranks: an admin, who proves its key; others are denied."""

from __future__ import annotations

import json
import tempfile

import pytest

from pydec.consensus.file_storage import FileStorage, create
from pydec.consensus.roles import Role
from pydec.consensus.transactions import Revoke
from pydec.errors import ConfigError
from pydec.launch.door import Door, find
from pydec.launch.permit import Permit, ledger_of, prove
from pydec.launch.scale import Desk
from pydec.launch.supervise import Signals as Received
from tests.consensus.world import World, genesis, key

from .test_scale import OPTIONS, Client, serve

LINE = json.dumps({"count": "+1"})


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run whose ledger has an admin, a, and a trainer, b, that was an admin once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    world = World(genesis(), real=True)
    world.run("a", Revoke(key("c").public, int(Role.TRAINER)))
    directory = tmp_path / "ledger" / "rank-2"
    directory.parent.mkdir()
    create(directory, world.genesis)
    with FileStorage(directory, key("a").public) as storage:
        storage.append(1, world.record(1))
    options = {**OPTIONS, "ledger": str(directory.parent)}
    (tmp_path / "config.json").write_text(json.dumps({"options": options}))
    return tmp_path


def asks(permit: Permit, name: str, **changes) -> None:
    permit.check(LINE.encode() + b"\n", lambda challenge: prove(challenge, LINE, key(name)) | changes)


def test_an_admin_may_and_others_are_denied_by_name_and_counted(run_dir, caplog):
    permit = Permit(lambda: str(run_dir))
    assert permit.denied() == []
    asks(permit, "a")
    for _ in range(2):
        with pytest.raises(
            ConfigError, match="may not change the number of ranks: it needs the role admin, and"
        ):
            asks(permit, "b")
    with pytest.raises(ConfigError, match="has none; name an admin's key with --key"):
        asks(permit, "stranger")
    first, second = permit.denied()
    assert (first["identity"], first["action"], first["count"]) == (
        key("b").public.hex(), "change the number of ranks", 2,
    )  # fmt: skip
    assert second["identity"] == key("stranger").public.hex()
    assert caplog.text.count("may not change the number of ranks") == 2


def test_a_proof_of_another_request_or_key_is_none(run_dir):
    permit, seen = Permit(lambda: str(run_dir)), []

    def said(challenge):
        seen.append(prove(challenge, LINE, key("a")))
        return seen[0]

    permit.check(LINE.encode(), said)
    for proof in (
        lambda challenge: seen[0],  # said once before
        lambda challenge: prove(challenge, LINE.replace("+1", "+9"), key("a")),
        lambda challenge: prove(challenge, LINE, key("b")) | {"identity": key("a").public.hex()},
    ):
        with pytest.raises(ConfigError, match="not signed by the key that it names"):
            permit.check(LINE.encode(), proof)


def test_without_a_ledger_whoever_comes_in_may(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"options": OPTIONS}))
    assert ledger_of(str(tmp_path)) == ledger_of("") == ledger_of(str(tmp_path / "none")) == ""
    Permit(lambda: str(tmp_path)).check(b"", lambda challenge: pytest.fail("nobody is asked"))


def test_a_ledger_that_cannot_be_read_here_lets_nobody_ask(run_dir):
    (run_dir / "ledger/rank-2/genesis").write_bytes(b"?")
    with pytest.raises(ConfigError, match="does not tell who may ask"):
        asks(Permit(lambda: str(run_dir)), "a")
    (run_dir / "ledger/rank-2/genesis").unlink()
    with pytest.raises(ConfigError, match="has no node on this machine"):
        asks(Permit(lambda: str(run_dir)), "a")


@pytest.mark.parametrize(
    ("name", "said"),
    [("a", "about to end"), ("b", "may not change the number"), (None, "wants to know who asks")],
)
def test_at_the_door_it_is_asked_before_anything_is_granted(run_dir, name, said, monkeypatch):
    """An admin comes as far as the job; here that has not started."""
    desk = Desk(
        Door(),
        lambda: str(run_dir),
        lambda hosts, signals: set(),
        lambda: 0,
        permit=Permit(lambda: str(run_dir)),
    )
    monkeypatch.setattr("tests.launch.test_scale.ask", asker(name))
    desk.door.tell(str(run_dir))
    try:
        client = Client("+1")
        with Received() as signals:
            serve(desk, signals, client)
        assert said in str(client.ended())
        assert desk.change is None
    finally:
        desk.door.close()


def asker(name):
    from pydec.launch.door import ask

    def asked(door, line, show):
        assert door == find()
        return ask(door, line, show, (lambda challenge: prove(challenge, line, key(name))) if name else None)

    return asked
