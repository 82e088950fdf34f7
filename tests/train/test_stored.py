"""Training reads a data set that one rank has and the others get, and gives the bits of a folder's."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from pydec.cli.main import main
from pydec.comm.local import LocalCluster
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.peer import Peer
from pydec.store import challenges
from pydec.store.adding import add
from pydec.store.exchange import Exchange
from pydec.store.inputs import open_input
from pydec.store.manifest import Policy
from pydec.store.messages import Kind
from pydec.store.objects import digest_of
from pydec.store.placement import Holder, Placement
from pydec.store.serving import Seal
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from pydec.train import job, stored
from pydec.train.config import TrainConfig

from .test_ledger import replayed

TASK = """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import TensorDataset
    from pydec.train import Defaults, Task

    def held(stored=None) -> Task:
        return Task(model=torch.nn.Linear(4, 3), train=stored(fields=["x", "y"]), loss=cross_entropy,
            defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd", epochs=2))

    def loaded(data=None) -> Task:
        import numpy as np
        x, y = (torch.from_numpy(np.load(f"{data}/{name}.npy")) for name in "xy")
        return Task(model=torch.nn.Linear(4, 3), train=TensorDataset(x, y), loss=cross_entropy,
            defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd", epochs=2))
"""


@pytest.fixture
def arrays(tmp_path, monkeypatch) -> str:
    """A folder of arrays, and a module that trains on them; the current directory is a new one."""
    (tmp_path / "held_task.py").write_text(textwrap.dedent(TASK))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    (tmp_path / "in").mkdir()
    np.save("in/x.npy", (rng.standard_normal((600, 4)) + 2 * np.eye(3, 4)[y]).astype(np.float32))
    np.save("in/y.npy", y)
    return "in"


def put(rank: int, name: str = "d", replicas: int = 1) -> bytes:
    with Store(Path(f"store-{rank}"), create=True) as store:
        return add(store, open_input("in"), name, chunk_bytes=4096, policy=Policy(replicas=replicas)).root


def together(size: int, config: TrainConfig, run_dir: str) -> list[dict]:
    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, config, run_dir, quiet=True)
            except job.SharedError as error:
                shared = error
        raise shared

    return LocalCluster(size).run(program)


def trained(run_dir: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(run_dir) / "checkpoints" / "final.pt")


def test_the_bits_are_those_of_a_folder_and_all_hold_what_they_owe(arrays):
    root = put(1, replicas=2)
    together(3, TrainConfig("held_task:loaded", data=arrays), "plain")
    result = together(3, TrainConfig("held_task:held", data="d", store="store-{rank}"), "held")[0]
    assert all(
        torch.equal(a, b) for a, b in zip(trained("plain").values(), trained("held").values(), strict=True)
    )
    data = result["data"]
    assert (data["name"], data["root"], data["bad_answers"]) == ("d", root.hex(), 0)
    assert data["objects_fetched"] > 0
    assert 0 < data["objects_held"] <= data["objects_owed"]
    for rank in range(3):
        with Store(Path(f"store-{rank}")) as store:
            assert store.roots() == [root]
    before = data["objects_fetched"]
    again = together(3, TrainConfig("held_task:held", data=root.hex()[:10], store="store-{rank}"), "again")[0]
    assert again["data"]["objects_fetched"] < before


def test_ranks_that_keep_what_they_owe_alone_share_the_data_and_learn_the_same(arrays):
    put(0)
    held = TrainConfig("held_task:held", data="d", store="store-{rank}", steps=60)
    together(3, held, "all")
    data = together(3, dataclasses.replace(held, keep_data="owed"), "owed")[0]["data"]
    assert all(
        torch.equal(a, b) for a, b in zip(trained("all").values(), trained("owed").values(), strict=True)
    )
    assert data["objects_dropped"] > 0
    held_by = []
    for rank in range(3):
        with Store(Path(f"store-{rank}")) as store:
            manifest = store.find("d")
            held_by.append({name for name in objects_of(store, manifest) if store.objects.has(name)})
            assert store.is_part(manifest.root) == (rank > 0)
    indices = {shard.index for shard in manifest.shards}
    assert held_by[0] >= held_by[1] | held_by[2]  # it was added there, so all of it stays
    assert held_by[1] & held_by[2] == indices
    with pytest.raises(job.SharedError, match="ranks 0 and 1 have one store"):
        together(2, dataclasses.replace(held, keep_data="owed", store="store-0"), "shared")


def test_damage_is_repaired_from_a_peer_while_training_goes_on(arrays):
    put(0)
    config = TrainConfig("held_task:held", data="d", store="store-{rank}")
    first = together(2, config, "first")[0]
    with Store(Path("store-1")) as store:
        manifest = store.find("d")
        names = list(store.objects.names())
        for name in names:
            path = store.objects.path(name)
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    again = together(2, config, "again")[0]
    assert again["data"]["objects_repaired"] + again["data"]["objects_fetched"] > 0
    assert first["status"] == again["status"] == "done"
    assert all(
        torch.equal(a, b) for a, b in zip(trained("first").values(), trained("again").values(), strict=True)
    )
    with Store(Path("store-0")) as store:
        assert verify(store, manifest).whole


def test_fragments_are_spread_over_ranks_and_give_the_same_bits(arrays):
    with Store(Path("store-1"), create=True) as store:
        add(store, open_input("in"), "d", chunk_bytes=16384, policy=Policy(replicas=2, parity=1))
    together(3, TrainConfig("held_task:loaded", data=arrays), "plain")
    config = TrainConfig("held_task:held", data="d", store="store-{rank}")
    data = together(3, config, "held")[0]["data"]
    assert all(
        torch.equal(a, b) for a, b in zip(trained("plain").values(), trained("held").values(), strict=True)
    )
    assert (data["bad_answers"], data["bytes_to_hold"]) == (0, 0)
    with Store(Path("store-1")) as store:  # what only the others hold is enough where one is lost
        manifest = store.find("d")
        for number in range(len(manifest.shards)):
            for names in store.layout(manifest, number).index.fragment_names:
                for name in names:
                    store.objects.remove(name)
    again = together(3, config, "again")[0]
    assert again["status"] == "done"
    assert all(
        torch.equal(a, b) for a, b in zip(trained("held").values(), trained("again").values(), strict=True)
    )


def test_a_rank_keeps_its_own_fragments_alone_where_that_is_asked_for(arrays):
    with Store(Path("store-0"), create=True) as store:
        manifest = add(store, open_input("in"), "d", chunk_bytes=16384, policy=Policy(replicas=2, parity=1))
        index = store.layout(manifest, 0).index
    config = TrainConfig("held_task:held", data="d", store="store-{rank}", keep_data="owed")
    assert together(4, config, "run")[0]["status"] == "done"
    holders = [Holder(b"rank %d" % rank, f"node {rank}") for rank in range(4)]
    place = Placement(holders, 3)
    for rank in range(1, 4):
        owed = {
            name
            for names in index.fragment_names
            for name, holder in zip(names, place.spread(names), strict=True)
            if holder.peer == b"rank %d" % rank
        }
        with Store(Path(f"store-{rank}")) as store:
            assert set(store.objects.names()) <= owed | {manifest.shards[0].index}


def test_one_rank_alone_reads_its_store(arrays):
    put(0)
    (result,) = together(1, TrainConfig("held_task:held", data="d", store="store-0"), "run")
    assert result["data"]["objects_fetched"] == 0


def test_a_name_that_two_ranks_have_for_different_data_is_refused(arrays):
    put(0)
    np.save("in/y.npy", np.zeros(600, np.int64))
    put(1)
    with pytest.raises(job.SharedError, match="ranks have different data sets of this name"):
        together(2, TrainConfig("held_task:held", data="d", store="store-{rank}"), "run")


def test_the_root_is_registered_on_the_ledger_and_kept_until_told_otherwise(arrays, capsys):
    root = put(0, replicas=2)
    config = TrainConfig("held_task:held", data="d", store="store-{rank}", steps=4, ledger="ledger")
    together(2, config, "run")
    registered = replayed(Path("ledger/rank-0")).state.datasets[root]
    assert (registered.name, registered.replicas) == ("d", 2)
    remove = ["data", "remove", "d", "--store", "store-1"]
    assert main(remove) == 2
    assert "is registered on the ledger in" in capsys.readouterr().err
    assert main([*remove, "--force"]) == 0
    with Store(Path("store-1")) as store:
        assert (store.roots(), list(store.objects.names())) == ([], [])


def test_a_data_set_that_extends_another_one_is_registered_as_its_child(arrays):
    parent = put(0)
    with Store(Path("store-0")) as store:
        child = add(store, open_input("in"), "longer", onto=store.manifest(parent)).root
    options = {"store": "store-{rank}", "steps": 4, "ledger": "ledger"}
    together(2, TrainConfig("held_task:held", data="d", **options), "first")
    together(2, TrainConfig("held_task:held", data="longer", **options), "second")
    registered = replayed(Path("ledger/rank-0")).state.datasets
    assert (registered[parent].parent, registered[child].parent) == (bytes(32), parent)


def test_a_rank_without_a_role_for_it_reads_no_data(arrays):
    put(0)
    roles = "0=admin+data-owner+trainer+validator,1=validator"
    config = TrainConfig(
        "held_task:held", data="d", store="store-{rank}", steps=4, ledger="ledger", roles=roles
    )
    needed = "may not read the data set: it needs the role data-owner or trainer, and has validator"
    with pytest.raises(job.SharedError, match=needed):
        together(2, config, "run")
    with Store(Path("store-1"), create=True) as store:
        assert not list(store.objects.names())


def test_private_data_is_read_by_ranks_whose_key_may(arrays):
    owner, stranger = SigningKey.generate(), SigningKey.generate()
    for name, key in (("owner", owner), ("stranger", stranger)):
        keyfile.create(Path(f"{name}.key"), key)
    with Store(Path("store-0"), create=True) as store:
        add(store, open_input("in"), "d", chunk_bytes=4096, policy=Policy(replicas=1), private=owner)
    options = {"data": "d", "store": "store-{rank}"}
    together(2, TrainConfig("held_task:loaded", data=arrays), "plain")
    together(2, TrainConfig("held_task:held", key="owner.key", **options), "held")
    assert all(
        torch.equal(a, b) for a, b in zip(trained("plain").values(), trained("held").values(), strict=True)
    )
    with pytest.raises(job.SharedError, match="may not read the data set"):
        together(2, TrainConfig("held_task:held", key="stranger.key", **options), "refused")
    with pytest.raises(job.SharedError, match="is private: name the key"):
        together(2, TrainConfig("held_task:held", **options), "nobody")


def test_the_ledger_says_who_reads_private_data_and_takes_it_back(arrays, capsys):
    def run(data: str) -> None:
        options = {"data": data, "store": "store-{rank}", "ledger": "ledger", "steps": 1}
        together(2, TrainConfig("held_task:held", **options), f"run-{data}")

    def data(*words: str) -> dict:
        who = ["--ledger", "ledger", "--key", "ledger/rank-0/key.json"]
        assert main(["data", *words, *who, "--store", "store-0", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    together(2, TrainConfig("held_task:loaded", data="in", ledger="ledger", steps=1), "run")
    owner, reader = (keyfile.load(Path(f"ledger/rank-{rank}/key.json")) for rank in (0, 1))
    shape = ["--replicas", "1", "--chunk-bytes", "4096"]
    added = data("add", "in", "--name", "d", "--private", *shape)
    root = bytes.fromhex(added["root"])
    assert added["ledger"].startswith("2 transactions to ledger/rank-0/inbox")
    with pytest.raises(job.SharedError, match=f"{reader.public.hex()[:16]} may not read the data set"):
        run("d")
    data("grant", "d", "rank:1")
    run("d")
    record = replayed(Path("ledger/rank-0")).state.datasets[root]
    assert (record.owner, record.encrypted, record.generation) == (owner.public, 1, 0)
    assert {access.grantee for access in record.readers} == {owner.public, reader.public}
    export = ["data", "export", "d", "out", "--ledger", "ledger", "--store", "store-0", "--key"]
    assert main([*export, "ledger/rank-1/key.json"]) == 0
    assert "files" in capsys.readouterr().out
    assert Path("out/x.npy").read_bytes() == Path("in/x.npy").read_bytes()
    taken = data("revoke", "d", "rank:1")
    assert taken["generation"] == 1
    assert "can open for ever" in taken["not undone"]
    more = data("add", "in", "--name", "e", "--private", "--extends", "d", *shape)
    for name in ("d", "e"):
        with pytest.raises(job.SharedError, match=f"{reader.public.hex()[:16]} may not read the data set"):
            run(name)
    assert main([*export, "ledger/rank-1/key.json"]) == 1
    assert f"{reader.public.hex()[:16]} may not read the data set" in capsys.readouterr().err
    state = replayed(Path("ledger/rank-0")).state
    assert [(a.grantee, a.generation) for a in state.datasets[root].readers] == [
        (owner.public, 0),
        (owner.public, 1),
    ]
    newer = state.datasets[bytes.fromhex(more["root"])]
    assert (newer.parent, newer.generation, [a.grantee for a in newer.readers]) == (root, 1, [owner.public])


def test_a_task_that_reads_no_store_says_so(arrays):
    put(0)
    with pytest.raises(job.SharedError, match="its function must take `stored`"):
        together(2, TrainConfig("held_task:loaded", data="d", store="store-{rank}"), "run")


def test_who_signs_for_other_bytes_loses_its_stake_and_is_passed_over(arrays, monkeypatch):
    put(0, replicas=2)
    put(1, replicas=2)
    other, found, sign = b"something else", Exchange._found, Seal.sign

    def lies(exchange, message):
        honest = exchange._link.rank != 1 or message.kind is not Kind.OBJECT
        return found(exchange, message) if honest else other

    def signs(seal, asker, request, name, digest):
        return sign(seal, asker, request, name, digest_of(other) if seal._rank == 1 else digest)

    monkeypatch.setattr(Exchange, "_found", lies)
    monkeypatch.setattr(Seal, "sign", signs)
    config = TrainConfig("held_task:held", data="d", store="store-{rank}", steps=8, ledger="ledger")
    data = together(4, config, "run")[0]["data"]
    assert data["bad_answers"] >= data["proofs"] > 0
    assert data["unsigned_answers"] == 0
    state = replayed(Path("ledger/rank-0")).state
    assert [account.slashed for account in state.accounts.values()].count(1) == 1


def test_ranks_prove_to_one_another_that_they_hold_what_they_owe(arrays, monkeypatch):
    monkeypatch.setattr(stored, "CHALLENGE_S", 0.001)
    put(0, replicas=2)
    config = TrainConfig("held_task:held", data="d", store="store-{rank}")
    together(2, config, "first")
    data = together(2, config, "again")[0]["data"]
    assert data["challenges_missed"] == {}
    assert data["challenges"] >= data["challenges_met"] > 0


def test_a_rank_that_proves_nothing_loses_its_stake_by_a_quorum(arrays, monkeypatch):
    monkeypatch.setattr(stored, "CHALLENGE_S", 1e-5)
    monkeypatch.setattr(challenges, "SPACE_S", 1e-5)
    for rank in range(4):
        put(rank, replicas=3)
    found = Exchange._found

    def dropped(exchange, message):
        lies = exchange._link.rank == 2 and message.kind is Kind.CHALLENGE
        return None if lies else found(exchange, message)

    monkeypatch.setattr(Exchange, "_found", dropped)
    config = TrainConfig("held_task:held", data="d", store="store-{rank}", steps=60, ledger="ledger")
    data = together(4, config, "run")[0]["data"]
    assert data["challenges_missed"]["2"] >= 9  # three by each of a quorum
    assert set(data["challenges_missed"]) == {"2"}
    assert data["stake_lost"] == [2]
    accounts = replayed(Path("ledger/rank-0")).state.accounts.values()
    assert [account.address for account in accounts if account.slashed] == ["rank:2"]
