"""Anyone verifies a chain offline; every damage costs one line that names file, height and reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pydec.cli.main import main
from pydec.consensus.block import Block
from pydec.consensus.evidence import Evidence
from pydec.consensus.file_storage import FileStorage, create
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes
from pydec.consensus.transactions import Begin, Dataset, Join, Leave, Transfer
from tests.consensus.world import BOTH, World, genesis, key

A, B = bytes([1]) * 32, bytes([2]) * 32


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[World, Path]:
    """Seven blocks with members coming and going, in a ledger directory."""
    world = World(genesis(topology="ring"), real=True)
    world.run("a", Transfer(key("e").public, 100))
    world.run("e", Join(BOTH, 100, "at:e"))
    world.run("a", Dataset(A, "digits", 3, 0, 1))
    world.run("a", Begin(A, B))
    world.add()
    texts = [(signed_bytes(Kind.PREPARE, world.chain_id, 1, 5, 0, name), name) for name in (A, B)]
    pair = [
        SignedStatement(Kind.PREPARE, world.chain_id, 1, 5, 0, name, key("d").sign(t)) for t, name in texts
    ]
    world.add(world.state.evidence_transaction(key("d").public, Evidence.of(*pair)))
    world.run("e", Leave())
    directory = tmp_path_factory.mktemp("run") / "ledger"
    create(directory, world.genesis)
    with FileStorage(directory, key("a").public) as storage:
        for height in range(1, 8):
            storage.append(height, world.record(height))
    return world, directory


def test_verify(chain, capsys):
    world, directory = chain
    assert main(["ledger", "verify", str(directory)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ledger        {directory}\nchain         {world.chain_id.hex()}\n")
    assert "verified      7 blocks, 6 transactions, epoch 3, " in out
    assert f"state root    {world.state.root().hex()}\n" in out
    assert main(["ledger", "verify", str(directory), "--json", "--chain", world.chain_id.hex()[:8]]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["height"], told["torn_bytes"]) == (True, 7, 0)
    assert told["head"] == world.blocks[-1][0].header.hash().hex()


def test_show(chain, capsys):
    world, directory = chain
    assert main(["ledger", "show", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "run           begun\n  topology    ring\n" in out
    assert "data set      0101010101010101 digits, 3 replicas\n" in out
    assert f"{key('d').public.hex()[:16]}             0           0           0  slashed\n" in out
    assert f"{key('e').public.hex()[:16]}             0           0         100  -\n" in out
    assert main(["ledger", "show", str(directory), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["height"], told["epoch"], told["stake"]) == (7, 3, 300)
    assert told["run"]["options"] == {"topology": "ring"}
    assert sum(a["stake"] + a["balance"] + a["locked"] for a in told["accounts"]) == world.state.supply.total
    assert main(["ledger", "show", str(directory), "--height", "6"]) == 0
    assert f"  EVIDENCE    {key('d').public.hex()[:16]}\n" in capsys.readouterr().out


def test_export_and_follow(chain, capsys):
    _, directory = chain
    assert main(["ledger", "export", str(directory)]) == 0
    blocks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [block["height"] for block in blocks] == list(range(1, 8))
    assert blocks[5]["transactions"][0]["evidence"] == "two PREPAREs in round 0 at height 5"
    assert blocks[1]["transactions"][0]["roles"] == ["trainer", "validator"]
    assert [block["parent"] for block in blocks[1:]] == [block["hash"] for block in blocks[:-1]]
    assert main(["ledger", "export", str(directory), "--height", "6"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["ledger", "follow", str(directory), "--blocks", "3", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == blocks[:3]


def test_follow_sees_blocks_as_they_are_written(chain, tmp_path, capsys, monkeypatch):
    world, _ = chain
    directory = tmp_path / "ledger"
    create(directory, world.genesis)
    with FileStorage(directory, key("b").public) as storage:
        storage.append(1, world.record(1))
        heights = iter((2, 3))
        monkeypatch.setattr(
            "pydec.cli.ledger.time.sleep", lambda s: storage.append(h := next(heights), world.record(h))
        )
        assert main(["ledger", "follow", str(directory), "--blocks", "3"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("height")]
    assert [line.split()[1] for line in lines] == ["1", "2", "3"]


def test_verify_compares_the_ledgers_of_a_run(chain, tmp_path, capsys):
    world, _ = chain
    for rank, heights in ((0, 7), (1, 5), (10, 7)):
        target = tmp_path / f"rank-{rank}"
        create(target, world.genesis)
        with FileStorage(target, key("b").public) as storage:
            for height in range(1, heights + 1):
                storage.append(height, world.record(height))
    assert main(["ledger", "verify", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [line.split("/")[-1] for line in out.splitlines() if line.startswith("ledger")] == [
        "rank-0",
        "rank-1",
        "rank-10",
    ]
    assert "agreement     3 ledgers hold the same blocks, up to where each ends\n" in out
    assert main(["ledger", "verify", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [ledger["height"] for ledger in told["ledgers"]] == [7, 5, 7]
    assert "holds the ledgers of 3 ranks; name one of them" in failure(
        capsys, "show", str(tmp_path), status=2
    )
    fork = World(world.genesis, real=True)
    fork.run("a", Transfer(key("e").public, 99))
    shutil.rmtree(tmp_path / "rank-10")
    create(tmp_path / "rank-10", world.genesis)
    with FileStorage(tmp_path / "rank-10", key("b").public) as storage:
        storage.append(1, fork.record(1))
    assert main(["ledger", "verify", str(tmp_path)]) == 1
    assert "disagree at height 1" in capsys.readouterr().err


def failure(capsys, *words: str, status: int = 1) -> str:
    assert main(["ledger", *words]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_ledger_that_begins_at_a_snapshot_says_so(chain, tmp_path, capsys):
    world, whole = chain
    directory = tmp_path / "rank-1"
    create(directory, world.genesis)
    with FileStorage(directory, key("b").public) as storage:
        storage.append(1, world.record(1))
        storage.install(*world.snapshot(4))
        for height in range(5, 8):
            storage.append(height, world.record(height))
    root = world.blocks[3][0].header.state_root.hex()
    begins = f"begins        at a snapshot of height 4, block {world.blocks[3][0].header.hash().hex()[:16]}\n"
    missing = "  missing     blocks 1 to 4, which were not executed here\n"
    assert main(["ledger", "verify", str(directory)]) == 0
    out = capsys.readouterr().out
    assert begins + "  verified    certificates of all epochs up to this block" in out
    assert missing + "verified      3 blocks, 2 transactions, epoch 3, " in out
    assert main(["ledger", "verify", str(directory), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["height"], told["blocks"], told["begins"]["state_root"]) == (7, 3, root)
    assert main(["ledger", "show", str(directory)]) == 0
    assert begins in capsys.readouterr().out
    assert main(["ledger", "export", str(directory)]) == 0
    first, *blocks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["snapshot"], first["height"]) == (True, 4)
    assert [block["height"] for block in blocks] == [5, 6, 7]
    assert main(["ledger", "show", str(directory), "--height", "3"]) == 2
    assert "begins at a snapshot of height 4, so block 3 is not here" in capsys.readouterr().err
    shutil.copytree(whole, tmp_path / "rank-0")
    assert main(["ledger", "verify", str(tmp_path)]) == 0
    assert "2 ledgers hold the same blocks, from where each begins to its end" in capsys.readouterr().out
    (directory / "epochs").unlink()
    assert main(["ledger", "verify", str(directory)]) == 1
    assert "epochs cannot be opened: No such file" in capsys.readouterr().err


def test_damage_and_forgery_name_file_height_and_reason(chain, tmp_path, capsys):
    world, directory = chain
    broken = tmp_path / "broken"
    shutil.copytree(directory, broken)
    data = bytearray((broken / "blocks").read_bytes())
    data[600] ^= 1
    (broken / "blocks").write_bytes(data)
    assert f"{broken / 'blocks'} is damaged at offset 68" in failure(capsys, "verify", str(broken))

    forged = tmp_path / "forged"
    create(forged, world.genesis)
    kept = world.blocks[2]
    world.blocks[2] = (Block(kept[0].header, ()), kept[1])
    with FileStorage(forged, key("a").public) as storage:
        for height in (1, 2, 3):
            storage.append(height, world.record(height))
    world.blocks[2] = kept
    message = failure(capsys, "verify", str(forged))
    assert f"{forged / 'blocks'}, offset " in message
    assert "height 3: the transactions of the block at height 3 are not its header's" in message


def test_a_torn_tail_is_told(chain, tmp_path, capsys):
    _, directory = chain
    torn = tmp_path / "torn"
    shutil.copytree(directory, torn)
    size = (torn / "blocks").stat().st_size
    with open(torn / "blocks", "r+b") as file:
        file.truncate(size - 10)
    assert main(["ledger", "verify", str(torn)]) == 0
    out = capsys.readouterr().out
    assert "verified      6 blocks" in out
    assert "bytes at the end, of an append that was cut off" in out
    assert (torn / "blocks").stat().st_size == size - 10


def test_mistakes_cost_one_line(chain, tmp_path, capsys):
    _, directory = chain
    for words, status, message in [
        (["verify", str(tmp_path)], 1, "genesis cannot be read: No such file"),
        (["verify", str(directory), "--chain", "00"], 1, "begins chain"),
        (["show", str(directory), "--height", "8"], 2, "the ledger ends at height 7, there is no block 8"),
        (["show", str(directory), "--height", "0"], 2, "from 1 on, got show --height 0"),
        (["verify", str(directory), "--height", "2"], 2, "--height goes with show and export"),
        (["export", str(directory), "--blocks", "2"], 2, "--blocks goes with follow"),
        (["prune", str(directory)], 2, "invalid choice: 'prune'"),
    ]:
        assert message in failure(capsys, *words, status=status)


def test_committee(chain, capsys):
    world, directory = chain
    words = ["ledger", "committee", str(directory), "--seats", "40"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epoch"] == world.state.table.epoch
    assert told["held"] == sum(member["seats"] for member in told["members"]) == 40
    assert {member["node_id"] for member in told["members"]} <= {
        validator.node_id.hex() for validator in world.state.table.validators
    }
    assert -40 < told["log10_unsafe"] < told["log10_unsafe_chosen"] <= 0
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"seats         40 of {world.state.table.total} units of stake" in out
    assert main([*words[:-1], "1024", "--faulty", "0.3"]) == 0
    assert "unsafe        never, if 30% of the stake is faulty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["committee", "--seats", "0"], "1 to 1024 seats, got 0"),
        (["committee", "--faulty", "0.4"], "--faulty must be in"),
        (["show", "--seats", "3"], "go with committee"),
    ],
)
def test_committees_that_cannot_be(chain, words, message, capsys):
    assert main(["ledger", words[0], str(chain[1]), *words[1:]]) == 2
    assert message in capsys.readouterr().err
