"""Sealed messages over a real MPI: the same bits, runs with and without a ledger, keys that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pydec.comm import identity
from pydec.comm.meet import seal
from pydec.comm.transport import Stream
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import PeerTimeout
from pydec.train.checkpoint_vault import Vault, open_model

KEY = SigningKey(bytes(32))


def exchange(transport):
    """Ring averaging with messages below and above MPI's eager limit; posts on every stream."""
    following, previous = (transport.rank + 1) % transport.size, (transport.rank - 1) % transport.size
    x = np.random.default_rng(transport.rank).standard_normal(300_000).astype(np.float32)
    y = np.empty_like(x)
    for tag, part in enumerate([slice(0, 10), slice(0, 0), slice(0, None), slice(5, 5000)] * 3):
        receive = transport.irecv(previous, tag, memoryview(y[part]))
        send = transport.isend(following, tag, memoryview(x[part]), matched=bool(tag % 2))
        assert receive.wait() == y[part].nbytes == send.wait()
        x[part] = (x[part] + y[part]) * np.float32(0.5)
    for stream in Stream:
        transport.stream(stream).post(following, x[:9].tobytes())
        while (note := transport.stream(stream).poll()) is None:
            pass
        assert note[0] == previous
        x[:9] += np.frombuffer(note[1], np.float32)
    return x


@pytest.mark.mpi(min_size=2)
@pytest.mark.timeout(60)
def test_sealed_mpi_and_a_plain_local_cluster_agree_bit_for_bit(mpi_transport, run_locally):
    sealed = seal(mpi_transport, identity.shared(KEY), pad=True)
    mine = exchange(sealed)
    np.testing.assert_array_equal(mine, run_locally(exchange, sealed.size)[sealed.rank])
    assert sealed.summary()["refused"] == {}


@pytest.mark.mpi(min_size=2)
@pytest.mark.timeout(60)
def test_a_late_message_can_be_given_up_over_mpi(mpi_transport):
    sealed = seal(mpi_transport, identity.fresh())
    following, previous = (sealed.rank + 1) % sealed.size, (sealed.rank - 1) % sealed.size
    late = sealed.irecv(previous, 7, memoryview(bytearray(9)))
    with pytest.raises(PeerTimeout, match=f"rank {previous} let 0.1 s pass"):
        late.wait(0.1)
    late.cancel()
    into = bytearray(9)
    receive = sealed.irecv(previous, 8, memoryview(into))
    sealed.isend(following, 8, memoryview(b"in time")).wait()
    assert receive.wait() == 7
    assert into[:7] == b"in time"


TRAIN = """
import os, sys
import torch
from torch.utils.data import TensorDataset
from pydec.cli.main import main
from pydec.train import Defaults, Task

def line() -> Task:
    x = torch.linspace(-1, 1, 96).reshape(-1, 1)
    data = TensorDataset(x, 3 * x - 1)
    torch.manual_seed(0)
    loss = torch.nn.functional.mse_loss
    return Task(torch.nn.Linear(1, 1), data, loss, validation=data, defaults=Defaults(batch_size=16))

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    words = ["train", "program:line", "--steps", "6", "--checkpoint-every", "3", "--threads", "1", "--quiet"]
    sealed = ["--secure", "on", "--key", "node.key", "--pad"]
    for number, more in enumerate([[], sealed, *LEDGER]):
        status = main([*words, "--run-dir", f"run-{number}", *more])
        assert status == 0, more
"""
LEDGER = '*[["--secure", "on", "--ledger", "chain", *more] for more in ([], ["--seal-checkpoints"])]'


def trained(path, number):
    run = path / f"run-{number}"
    model = run / "checkpoints" / "final.pt"
    if model.exists():
        content = model.read_bytes()
    else:
        vault = Vault(keyfile.load(path / "chain" / "rank-1" / "key.json"))
        content = b"".join(map(bytes, open_model(model.with_name("final.pt.sealed"), vault)))
    return json.loads((run / "summary.json").read_text()), content


@pytest.mark.timeout(240)
def test_training_has_the_same_bits_sealed_and_plain(mpirun, tmp_path):
    keyfile.create(tmp_path / "node.key", KEY)
    done = mpirun(TRAIN.replace("*LEDGER", LEDGER), 2, timeout_s=200)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, model = trained(tmp_path, 0)
    assert [path.name for path in (tmp_path / "run-3/checkpoints").glob("*.pt*")] == ["final.pt.sealed"]
    assert plain["secure"] is None
    trusts = []
    for number in (1, 2, 3):
        sealed, same = trained(tmp_path, number)
        assert same == model
        assert sealed["bytes_sent"] > plain["bytes_sent"]
        assert (sealed["secure"]["refused"], sealed["secure"]["not_let_in"]) == ({}, {})
        trusts.append(sealed["secure"]["trust"])
    assert trusts[0] == f"only holders of key {KEY.public.hex()[:16]} are let in"
    assert trusts[1] == trusts[2]
    assert trusts[1].startswith("the ledger's keys; those that are new to it are trusted on first use")


STRANGER = """
import sys
import pydec
from pydec.comm.sealing import Sealing
folder = sys.argv[1]
from pydec.comm.detect import launch
me = launch().rank
key = f"{folder}/{'stranger' if me == 2 else 'node'}.key"
with pydec.init(deadline_s=30, secure=Sealing("on", key=key)) as peer:
    assert peer.transport.lost() == {2}, peer.transport.lost()
    other = 1 - me
    send = peer.transport.isend(other, 1, memoryview(b"goes on"))
    into = bytearray(7)
    peer.transport.irecv(other, 1, memoryview(into)).wait()
    send.wait()
    print(me, into.decode(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_rank_with_another_key_is_shut_out_and_the_others_go_on(mpirun, tmp_path):
    keyfile.create(tmp_path / "node.key", KEY)
    keyfile.create(tmp_path / "stranger.key", SigningKey(bytes([1]) * 32))
    flags = [
        "--with-ft",
        "ulfm",
        "--mca",
        "async_mpi_finalize",
        "1",
        "--prtemca",
        "state_base_recoverable",
        "1",
    ]
    done = mpirun(STRANGER, 3, flags=flags, timeout_s=90)
    assert "0 goes on" in done.stdout
    assert "1 goes on" in done.stdout
    assert "ranks 0, 1 do not let this rank in" in done.stderr
    assert "rank 0: rank 2 is shut out: it is refused: its key" in done.stderr
    assert "seed" not in done.stderr


@pytest.mark.timeout(90)
def test_a_key_file_that_others_may_read_ends_the_job_in_one_line(mpirun, tmp_path):
    for name in ("node", "stranger"):
        keyfile.create(tmp_path / f"{name}.key", KEY)
        (tmp_path / f"{name}.key").chmod(0o644)
    done = mpirun(STRANGER, 2, timeout_s=60)
    assert done.returncode != 0
    assert "node.key has mode 0644, so others may use it" in done.stderr
    assert "Traceback" not in done.stderr
