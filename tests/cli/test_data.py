"""``pydec data`` from end to end, in one process."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pydec.cli.main import main
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey


@pytest.fixture
def data(tmp_path, capsys):
    def call(*words: object, store: str = "store", status: int = 0, json_: bool = True) -> object:
        options = ["--store", str(tmp_path / store), *(["--json"] if json_ else [])]
        assert main(["data", *map(str, words), *options]) == status
        said = capsys.readouterr()
        return json.loads(said.out) if json_ and status != 2 else said.out + said.err

    np.save(tmp_path / "x.npy", np.arange(5000.0).reshape(-1, 5))
    return call


def test_data_is_added_listed_verified_exported_and_removed(data, tmp_path):
    added = data("add", tmp_path / "x.npy", "--name", "x", "--chunk-bytes", 4096, "--replicas", 2)
    assert (added["samples"], added["bytes"], added["replicas"]) == (1000, 40_000, 2)
    (listed,) = data("list")["data"]
    assert listed["root"] == added["root"]
    (state,) = data("status")["data"]
    assert state["objects_here"] == state["objects"] == 11
    (row,) = data("verify", added["root"][:8])["data"]
    assert (row["whole"], row["objects"]) == (True, 11)
    data("export", "x", tmp_path / "out")
    assert (tmp_path / "out" / "x.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()
    assert data("remove", "x")["objects_freed"] == 11
    assert data("list")["data"] == []


def test_damage_is_reported_and_repaired_from_another_store(data, tmp_path):
    data("add", tmp_path / "x.npy", "--name", "x", "--chunk-bytes", 4096)
    assert data("repair", "x", "--from", tmp_path / "store", store="other")["whole"]
    chunks = sorted(path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file())
    chunks[0].unlink()
    chunks[1].write_bytes(b"bad")
    (row,) = data("verify", status=1)["data"]
    assert (len(row["missing"]), len(row["damaged"])) == (1, 1)
    assert data("repair", "x", "--from", tmp_path / "other")["repaired"] == 2
    assert data("verify", "x")["data"][0]["whole"]


def test_fragments_are_made_again_without_another_store(data, tmp_path):
    words = "add", tmp_path / "x.npy", "--name", "x", "--chunk-bytes", 24576, "--erasure", "4+2"
    assert data(*words)["erasure"] == "4+2"
    fragments = sorted((tmp_path / "store" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    files = [path for path in fragments if path.is_file() and path.stat().st_size > 4000]
    files[0].unlink()
    files[1].write_bytes(b"bad")
    (row,) = data("status")["data"]
    assert (row["objects"] - row["objects_here"], row["bytes_missing"] > 0) == (1, True)
    assert "every chunk can be decoded" in data("verify", status=1, json_=False)
    said = data("status", json_=False)
    assert "erasure 4+2 wanted" in said
    assert data("repair", "x")["repaired"] == 2
    assert data("verify", "x")["data"][0]["whole"]


def test_copies_are_not_made_again_without_another_store(data, tmp_path):
    data("add", tmp_path / "x.npy", "--name", "x")
    assert "needs --from DIR" in data("repair", "x", status=2, json_=False)


def test_data_is_appended_to_a_data_set(data, tmp_path):
    data("add", tmp_path / "x.npy", "--name", "x", "--chunk-bytes", 4096, "--replicas", 2)
    both = data("add", tmp_path / "x.npy", "--name", "both", "--append", "x")
    (first, second) = data("list")["data"]
    assert (both["samples"], both["replicas"], both["parent"]) == (2000, 2, second["root"])
    assert (first["name"], second["name"]) == ("both", "x")
    assert data("verify", "both")["data"][0]["whole"]


def test_garbage_is_counted_then_removed(data, tmp_path):
    data("add", tmp_path / "x.npy", "--name", "x", "--chunk-bytes", 4096)
    junk = tmp_path / "store" / "objects" / "ab" / ("ab" + "0" * 62)
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(b"junk")
    found = data("gc", "--dry-run")
    assert (found["objects"], found["bytes"], found["removed"]) == (1, 4, False)
    assert junk.exists()
    assert data("gc")["objects"] == 1
    assert not junk.exists()
    assert data("gc")["objects"] == 0
    assert data("verify")["data"][0]["whole"]


def test_what_is_said_to_people(data, tmp_path):
    said = data("add", tmp_path / "x.npy", "--name", "x", json_=False)
    assert "x float64[5]" in said
    assert "1000 samples" in data("list", json_=False)
    assert "2 of 2 objects here" in data("status", json_=False)
    assert "whole; 2 objects" in data("verify", json_=False)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add"], "PATH is missing"),
        (["add", "x"], "needs --name"),
        (["add", "nowhere", "--name", "x"], "there is no file or folder"),
        (["add", "x.npy", "--name", "x", "--format", "magic"], "--format must be one of"),
        (["add", "x.npy", "--name", "x", "--replicas", "0"], "--replicas must be"),
        (["export", "x"], "DIR is missing"),
        (["list", "x", "y"], "too many words"),
        (["add", "x.npy", "--name", "x", "--erasure", "4"], "--erasure must be like 4+2"),
        (["add", "x.npy", "--name", "x", "--erasure", "30+3"], "at most 32 fragments"),
        (["add", "x.npy", "--name", "x", "--erasure", "4+2", "--replicas", "3"], "name one of them"),
        (["repair", "x"], "there is no store in"),
        (["verify", "x", "--from", "y"], "--from DIR is for data repair"),
        (["revoke", "x"], "the public key is missing"),
        (["add", "x.npy", "--name", "x", "--extends", "y"], "--extends needs data add --private"),
        (["verify", "x", "--ledger", "L"], "--ledger needs data add --private, export, grant, revoke"),
        (["verify", "x"], "there is no store in"),
        (["remove", "x"], "there is no store in"),
        (["list", "--append", "x"], "--append needs data add"),
        (
            ["add", "x.npy", "--name", "x", "--append", "y", "--chunk-bytes", "9999"],
            "leave --chunk-bytes out",
        ),
        (["gc", "x"], "data gc: too many words"),
        (["list", "--dry-run"], "--dry-run needs data gc"),
        (["gc", "--force"], "--force needs data remove"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(data, words, reason):
    said = data(*words, status=2, json_=False)
    assert reason in said
    assert said.count("\n") == 1


def test_readers_beside_the_data_come_and_go_and_the_command_says_what_that_is_worth(data, tmp_path):
    who = SigningKey(bytes([2]) * 32).public.hex()
    keyfile.create(tmp_path / "owner.key", SigningKey(bytes([1]) * 32))
    keyfile.create(tmp_path / "reader.key", SigningKey(bytes([2]) * 32))
    owner, reader = (["--key", tmp_path / f"{name}.key"] for name in ("owner", "reader"))
    assert "other copies" in data("add", tmp_path / "x.npy", "--name", "x", "--private", *owner)["readers"]
    assert "other copies" in data("grant", "x", who, *owner)["kept"]
    data("export", "x", tmp_path / "out", *reader)
    taken = data("revoke", "x", who, *owner)
    assert (taken["generation"], taken["reader"]) == (1, who)
    assert "can open for ever" in taken["not undone"]
    said = data("export", "x", tmp_path / "again", *reader, status=1, json_=False)
    assert "may not read the data set" in said
    assert said.count("\n") == 1
    assert "is no reader of x" in data("revoke", "x", who, *owner, status=2, json_=False)
    assert "is no public key" in data("grant", "x", "bob", *owner, status=2, json_=False)


def test_bad_data_is_one_line_and_status_1(data, tmp_path):
    (tmp_path / "empty").mkdir()
    said = data("add", tmp_path / "empty", "--name", "x", status=1, json_=False)
    assert "holds no sample; nothing was added" in said
    assert said.count("\n") == 1
