"""The ledger over a real mpirun: ranks that are killed, stopped, restarted, cut off, and many of them.

The job's ranks commit beacons until a file says stop, and write down how far they are; the test looks on from
outside. Nothing here asserts how long anything takes, but that it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.cli import bench
from pydec.cli.main import main
from pydec.comm.agree import agree
from pydec.consensus.file_storage import create, read_blocks, read_genesis, read_snapshot, read_steps
from pydec.consensus.handover import SPACING
from pydec.consensus.newcomer import FAR
from pydec.consensus.node import founders, open_node
from pydec.consensus.replay import Replay
from pydec.consensus.transactions import Beacon, sign
from pydec.crypto.signing import SigningKey

FAULT_TOLERANT = (
    "--with-ft", "ulfm", "--mca", "async_mpi_finalize", "1", "--prtemca", "state_base_recoverable", "1",
)  # fmt: skip
KEYS = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 65)]
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from pydec.comm.mpi import open_mpi
from pydec.consensus.file_storage import create
from pydec.consensus.node import founders, open_node
from pydec.consensus.transactions import Beacon, sign
from pydec.crypto.signing import SigningKey
from pydec.errors import LedgerError, TransactionError

folder = Path(sys.argv[1])
speakers, target = SPEAKERS, TARGET
transport = open_mpi(60.0)
pause_s = 0.01 * transport.size  # or telling is what the cores are busy with
rank = transport.rank
keys = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 1 + transport.size)]
directory = folder / f"rank-{rank}"
create(directory, founders("test", [key.public for key in keys]))
node = open_node(transport, directory, keys[rank])

def tell(**more):
    path = folder / f"told-{rank}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": os.getpid(), "height": node.head[0], "failure": node.failure,
                                "reports": list(node.reports), **more}))
    part.replace(path)

while not (folder / "stop").exists():
    tell()
    if rank in speakers and (not target or node.head[0] < target):
        account = node.state.accounts[keys[rank].public]
        beacon = sign(keys[rank], node.state.chain_id, account.sequence, Beacon(account.round + 1))
        try:
            node.submit(beacon).result(1.0 + pause_s)
        except (TimeoutError, LedgerError, TransactionError):
            pass
    else:
        time.sleep(pause_s)
tell(done=True)
while not (folder / "leave").exists():
    time.sleep(pause_s)
node.close()
if SURVIVES:
    os._exit(0)  # finalising after a survived failure may hang
transport.close()
"""


def program(speakers=range(64), target=0, survives=False):
    values = {"SPEAKERS": repr(set(speakers)), "TARGET": str(target), "SURVIVES": str(survives)}
    code = PROGRAM
    for name, value in values.items():
        code = code.replace(name, value)
    return code


class Watch:
    """What the ranks of a job have told so far."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(exist_ok=True)
        for path in (*folder.glob("told-*"), folder / "stop", folder / "leave"):
            path.unlink(missing_ok=True)

    def told(self, rank: int) -> dict:
        try:
            return json.loads((self.folder / f"told-{rank}.json").read_text())
        except FileNotFoundError:
            return {"height": -1}

    def height(self, rank: int) -> int:
        return self.told(rank)["height"]

    def until(self, what, job=None, limit_s=100.0) -> None:
        end_s = time.monotonic() + limit_s
        while not what():
            said = {rank: self.told(rank) for rank in range(self.size)}
            assert time.monotonic() < end_s, said
            assert job is None or job.poll() is None, (said, job.communicate())
            time.sleep(0.05)

    def reach(self, ranks, height: int, job=None) -> None:
        self.until(lambda: all(self.height(rank) >= height for rank in ranks), job)

    def top(self) -> int:
        return max(self.height(rank) for rank in range(self.size))

    def signal(self, rank: int, signum: int) -> None:
        os.kill(self.told(rank)["pid"], signum)

    def end(self, ranks=None) -> None:
        """Let them leave, all of them with everything that any has."""
        ranks = range(self.size) if ranks is None else ranks
        (self.folder / "stop").touch()
        self.until(lambda: all(self.told(rank).get("done") for rank in ranks))
        (self.folder / "leave").touch()

    def chains(self) -> list[list[bytes]]:
        """The blocks of every rank, all verified from the genesis, none contradicting another."""
        chains = []
        for rank in range(self.size):
            directory = self.folder / f"rank-{rank}"
            genesis = read_genesis(directory)
            replay, base = Replay(genesis), read_snapshot(directory, genesis.chain_id)
            if base.height:  # it was stopped for long enough
                replay.begin(base.record, read_steps(directory, genesis))
            hashes = [b""] * replay.base
            with read_blocks(directory, genesis) as blocks:
                for _, record in blocks.records():
                    replay.add(record)
                    hashes.append(replay.head)
            chains.append(hashes)
        longest = max((chain for chain in chains if b"" not in chain), key=len)
        for chain in chains:
            assert all(mine in (b"", theirs) for mine, theirs in zip(chain, longest, strict=False))
        return chains


@pytest.mark.mpi(min_size=2)
@pytest.mark.timeout(60)
def test_every_rank_commits_while_the_main_threads_talk(mpi_transport, tmp_path_factory):
    size, rank = mpi_transport.size, mpi_transport.rank
    directory = tmp_path_factory.mktemp("ledger") / f"rank-{rank}"
    create(directory, founders("test", [key.public for key in KEYS[:size]]))
    with open_node(mpi_transport, directory, KEYS[rank]) as node:
        for number in range(3):
            account = node.state.accounts[KEYS[rank].public]
            beacon = sign(KEYS[rank], node.state.chain_id, account.sequence, Beacon(account.round + 1))
            future = node.submit(beacon)
            agree(mpi_transport, {"round": str(number)})  # nobody waits for the ledger
            node.wait([future], 30.0)
        agree(mpi_transport, {})
        node.wait_for_height(3, 30.0)
        assert node.failure is None
        assert not node.reports
        agree(mpi_transport, {"first blocks": node.state.recent[0].hex()})


@pytest.mark.timeout(120)
def test_a_killed_rank_stops_nobody_and_goes_on_in_the_next_job(mpirun, tmp_path):
    watch = Watch(tmp_path, 4)

    def kill(job):
        watch.reach(range(4), 3, job)
        watch.signal(2, signal.SIGKILL)
        watch.reach((0, 1, 3), watch.top() + 5)
        watch.end((0, 1, 3))

    mpirun(program(survives=True), 4, flags=FAULT_TOLERANT, act=kill)
    chains = watch.chains()
    assert len(chains[2]) < len(chains[0])
    watch = Watch(tmp_path, 4)
    before = len(chains[0])

    def go_on(job):
        watch.reach(range(4), before + 3, job)
        watch.end()

    assert mpirun(program(), 4, act=go_on).returncode == 0
    assert min(map(len, watch.chains())) >= before + 3
    assert main(["ledger", "verify", str(tmp_path / "rank-2")]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rank_that_missed_a_thousand_blocks_comes_back_by_a_snapshot(mpirun, tmp_path):
    watch = Watch(tmp_path, 4)

    def kill(job):
        watch.reach(range(4), 3, job)
        watch.signal(2, signal.SIGKILL)
        missed = watch.height(2) + FAR + 2 * SPACING
        watch.until(lambda: min(watch.height(rank) for rank in (0, 1, 3)) >= missed, limit_s=400.0)
        watch.end((0, 1, 3))

    mpirun(program(survives=True), 4, flags=FAULT_TOLERANT, act=kill, timeout_s=500.0)
    before = max(map(len, watch.chains()))
    watch = Watch(tmp_path, 4)

    def go_on(job):
        watch.reach(range(4), before + 3, job)
        watch.end()

    assert mpirun(program(), 4, act=go_on, timeout_s=200.0).returncode == 0
    assert read_snapshot(tmp_path / "rank-2", read_genesis(tmp_path / "rank-2").chain_id).height >= SPACING
    assert min(map(len, watch.chains())) >= before + 3
    assert main(["ledger", "verify", str(tmp_path)]) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [4, 7])
def test_ranks_that_are_stopped_and_killed_hold_nobody_up(mpirun, tmp_path, size):
    watch = Watch(tmp_path, size)
    others = range(1, size)

    def act(job):
        watch.reach(range(size), 3, job)
        watch.signal(0, signal.SIGSTOP)
        stopped_s = time.monotonic()
        watch.reach(others, watch.top() + 5, job)
        time.sleep(max(0.0, stopped_s + 10.0 - time.monotonic()))
        watch.signal(0, signal.SIGCONT)
        watch.reach(range(size), watch.top() + 3, job)  # the stopped one has caught up
        alive = list(range(size))
        if size == 7:  # one more may fail
            watch.signal(6, signal.SIGKILL)
            alive.remove(6)
            watch.reach(alive, watch.top() + 5)
        watch.end(alive)

    mpirun(program(survives=True), size, flags=FAULT_TOLERANT, act=act, timeout_s=200.0)
    for rank in range(size - (size == 7)):
        assert watch.told(rank)["failure"] is None
        assert not watch.told(rank)["reports"]  # the honest are not reported, however slow
    watch.chains()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_64_ranks_share_the_cores(mpirun, tmp_path):
    watch = Watch(tmp_path, 64)

    def act(job):
        watch.until(lambda: all(watch.height(rank) >= 3 for rank in range(64)), job, 400.0)
        watch.end()

    done = mpirun(program(speakers=[5], target=3), 64, act=act, timeout_s=500.0)
    assert done.returncode == 0
    assert min(map(len, watch.chains())) >= 3


lab = bench.load("netlab.lab")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing()))
def test_a_partition_of_four_hosts_stops_the_smaller_side_only_and_heals(tmp_path):
    watch = Watch(tmp_path, 4)
    script = tmp_path / "program.py"
    script.write_text(program(speakers=[0, 1, 2]))

    def cable(made, host, state):
        subprocess.run(["ip", "-n", made.hosts[host], "link", "set", "eth0", state], check=True)

    with lab.Lab([lab.Link("100mbit")] * 4) as made:
        words = made.mpirun([sys.executable, str(script), str(tmp_path)])
        environment = {**made.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
        job = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            watch.reach(range(4), 3, job)
            cable(made, 3, "down")
            watch.reach(range(3), watch.top() + 5, job)  # three of four are a quorum
            cut = watch.height(3)
            cable(made, 2, "down")
            time.sleep(1.0)
            halted = watch.top()
            time.sleep(3.0)
            assert watch.top() <= halted + 1  # two of four are none
            assert watch.height(3) == cut
            cable(made, 2, "up")
            watch.reach(range(3), watch.top() + 3, job)
            cable(made, 3, "up")
            watch.reach(range(4), watch.top() + 3, job)
            watch.end()
            job.wait(60.0)
        finally:
            made.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.communicate(timeout=10.0)
    watch.chains()
