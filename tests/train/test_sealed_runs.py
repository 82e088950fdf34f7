"""Runs whose checkpoints are sealed: the same bits go on, and who opens them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pydec.cli.main import main
from pydec.comm.local import LocalCluster
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError
from pydec.peer import Peer
from pydec.train import job
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_vault import PLAIN_BYTES, Vault, holders, open_model
from pydec.train.resume import configuration
from pydec.train.rundir import RunDir

from .test_checkpoint_vault import same
from .test_replicas import on_own_disks
from .test_replicas import together as on_disks
from .test_resume import config, cut, go_on, losses, tensors, together

KEYS = [SigningKey(bytes([n + 1]) * 32) for n in range(4)]
BODY = {"members": [0, 1], "state": {"loss": 0.123456789}}
MANY = 3 * PLAIN_BYTES // 4 + 1000


def sealed(toy, **more):
    return config(toy, seal_checkpoints=True, **{"ledger": "ledger", **more})


def clear(run_dir, step, rank, key="ledger/rank-0/key.json"):
    """A part's tensors, as ``tensors`` gives those of a run that is not sealed."""
    out = f"{run_dir}-{step}-{rank}"
    words = ["checkpoint", "open", run_dir, "--key", key, "--step", str(step), "--rank", str(rank)]
    assert main([*words, "--out", out]) == 0
    found = load_file(f"{out}/step-{step}/rank-{rank}.safetensors")
    return {name: tensor for name, tensor in found.items() if not name.startswith("pydec/random")}


def test_a_sealed_run_goes_on_with_the_same_bits(toy, records):
    together(2, config(toy), "plain")
    together(2, sealed(toy), "whole")
    cut("whole", 8, "cut")
    go_on(2, "cut", resume_step=8)  # the ledger knows of a newer one
    assert losses(records, "cut", 2) == losses(records, "plain", 2)
    for rank in range(2):
        mine, theirs = clear("cut", 12, rank, "ledger/rank-1/key.json"), tensors("plain", 12, rank)
        assert same(mine, theirs)
    assert [path.name for path in Path("cut/checkpoints").glob("*.pt*")] == ["final.pt.sealed"]


def identities(*keys):
    """A key file for each rank, and the list of them."""
    for rank, key in enumerate(keys):
        Path(f"rank-{rank}.key").unlink(missing_ok=True)
        keyfile.create(Path(f"rank-{rank}.key"), key)
    Path("peers").write_text("".join(f"{key.public.hex()}\n" for key in keys))
    return {"ledger": "", "key": "rank-{rank}.key", "peers": "peers"}


def test_other_ranks_with_other_keys_go_on_from_what_one_of_the_old_ones_opens(toy):
    """Rank 2 is new, rank 1 has lost its key with its disk: rank 0 hands the key over."""
    together(2, config(toy, steps=8), "plain")
    together(2, sealed(toy, steps=8, **identities(*KEYS[:2])), "run")
    identities(KEYS[0], KEYS[2], KEYS[3])
    result = go_on(3, "run", steps=12)
    assert result["steps"] == 12
    assert result["loss"] == go_on(3, "plain", steps=12)["loss"]
    store = Store(RunDir(Path("run")), Vault(KEYS[1]))
    for rank in range(3):
        readers = holders(store.manifest(12, rank)["sealed"]["key"])
        assert readers == sorted(KEYS[of].public.hex() for of in (0, 2, 3))
    with pytest.raises(ConfigError, match="is sealed: it opens for"):
        store.tensors(12, 0)


def test_ranks_of_which_none_has_the_key_are_refused_alike(toy):
    together(2, sealed(toy, steps=8, **identities(*KEYS[:2])), "run")
    identities(*KEYS[2:])
    with pytest.raises(ConfigError, match=r"rank-0.safetensors is sealed: it opens for identity keys"):
        go_on(2, "run", steps=12)


def test_copies_are_made_verified_and_taken_without_keys(toy, monkeypatch):
    on_own_disks(monkeypatch)
    on_disks(3, sealed(toy, replicas=2, keep_last=1, **identities(*KEYS[:3])))
    for rank in range(3):
        store = Store(RunDir(Path(f"disk-{rank}/run")))  # has no vault
        assert store.ranks(12) == sorted([rank, (rank - 1) % 3])
        assert store.ranks(4) == []
        for copied in store.ranks(12):
            assert "sealed" in store.verify(12, copied)
    shutil.rmtree("disk-1")
    result = on_disks(3, configuration("disk-0/run", {"steps": 16}), resume=True)
    assert result["steps"] == 16
    assert Store(RunDir(Path("disk-1/run"))).ranks(16) == [0, 1]


def test_an_observer_opens_nothing(toy):
    """Rank 1 may see no tensor; rank 2, which takes its place among those that train, has its own key."""
    assert together(3, sealed(toy, roles="1=observer"), "run")["ranks_finished"] == 2
    keys = [keyfile.load(Path(f"ledger/rank-{rank}/key.json")) for rank in range(3)]
    store = Store(RunDir(Path("run")), Vault(keys[1]))
    for rank in range(2):
        readers = holders(store.manifest(12, rank)["sealed"]["key"])
        assert readers == sorted(keys[of].public.hex() for of in (0, 2))
        with pytest.raises(ConfigError, match="is sealed: it opens for"):
            store.tensors(12, rank)
    with pytest.raises(ConfigError, match="is sealed: it opens for"):
        open_model(Path("run/checkpoints/final.pt.sealed"), Vault(keys[1]))
    assert go_on(3, "run", steps=16)["steps"] == 16


def test_one_key_for_the_whole_job(toy):
    keyfile.create(Path("job.key"), SigningKey.generate())
    plain = together(2, config(toy), "plain")
    result = together(2, sealed(toy, ledger="", key="job.key", steps=8), "run")
    result = go_on(2, "run", steps=12)
    assert result["loss"] == plain["loss"]
    assert same(clear("run", 12, 1, "job.key"), tensors("plain", 12, 1))


def test_a_run_may_begin_to_seal_when_it_goes_on_and_says_what_is_not_proved(toy, records, capsys):
    together(2, config(toy), "whole")
    cut("whole", 8, "cut")
    store = Store(RunDir(Path("cut")))
    newest = store.steps()[0]  # 8, or 4 if the disk was slow

    def shown(**given):
        settings = configuration("cut", given)

        def program(transport):
            with Peer(transport, signals=False) as peer:
                job.run(peer, settings, "cut", resume=True)

        LocalCluster(2).run(program)
        return capsys.readouterr().out

    said = f"the checkpoint of step {newest} is not sealed: nothing proves who wrote it"
    assert said in shown(seal_checkpoints=True, **identities(*KEYS[:2]))
    assert losses(records, "cut", 2) == losses(records, "whole", 2)
    assert ["sealed" in store.manifest(step, 0) for step in (newest, 12)] == [False, True]
    again = shown(steps=16)
    assert "going on from step 12" in again
    assert "is not sealed" not in again


def test_what_cannot_be_sealed_is_said_at_once(toy):
    with pytest.raises(ConfigError, match="give --ledger DIR, or --key"):
        config(toy, seal_checkpoints=True)
    for more in ({"key": "fd:3"}, {"key": "a.key", "passphrase_from": "fd:3"}):
        with pytest.raises(ConfigError, match="a file descriptor can be read once"):
            config(toy, seal_checkpoints=True, **more)
