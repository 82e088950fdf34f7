"""Hosts with disks of their own, network namespaces, that suffer all there is by a seeded schedule.

Ranks are killed and stopped, links are cut, for a moment or for good, or slow, disks fill up, a host dies
with its disk, and others join, with a ledger, sealed messages and two copies of every checkpoint. Where
mpirun 5.0 cannot survive that (a host that dies), ``pydec run`` starts the job again.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.cli import bench
from pydec.train.checkpoint_files import Store
from pydec.train.rundir import RunDir

from .test_chaos import Chaos, on_hosts

lab = bench.load("netlab.lab")
RANKS, SPARE, MORE = 6, 6, 7  # ranks at first, one on each host; the host in reserve, and the one that joins
DISK_MB = 24
LAUNCHER = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
host=$1; shift
exec ip netns exec "$host" unshare -u bash -c "mount --bind FOLDER/disk-$host FOLDER/disk; hostname $host; $*"
"""
QUIET_S = 5.0  # for the ledger to decide, before the next rank is lost
DEADLY, FEWEST = ("kill", "silence", "fill", "die"), 4  # a quorum of fewer cannot lose one more


class Hosts(Chaos):
    """A run on the hosts of a lab."""

    def __init__(self, folder: Path, made, steps: int) -> None:
        super().__init__(folder, RANKS, steps)
        self.made = made
        self.launcher = folder / "launcher"
        self.launcher.write_text(LAUNCHER.replace("FOLDER", str(folder)))
        self.launcher.chmod(0o755)
        (folder / "disk").mkdir()
        for host in made.hosts:
            self.disk(host).mkdir()
            options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "pydec", str(self.disk(host))]
            subprocess.run(["mount", *options], check=True)

    def words(self, *options: str) -> list[str]:
        hosts = ",".join(f"{host}:1" for host in self.made.hosts[:RANKS])
        where = ["--hosts", hosts, "--spare", f"{self.made.hosts[SPARE]}:1", "--max-restarts", "3"]
        words = super().words(*where, "--launch-agent", str(self.launcher), *options)
        words[words.index("--run-dir") + 1] = "disk/run"
        words[words.index("--ledger") + 1] = "disk/L"
        words[words.index("--checkpoint-every") + 1] = "100"
        return [str(self.launcher), self.made.hosts[0], *words, "--replicas", "2"]

    def disk(self, host: str) -> Path:
        return self.folder / f"disk-{host}"

    def step(self, rank: int) -> int:
        config = self.disk(self.made.hosts[0]) / "run/config.json"
        return super().step(rank) + (json.loads(config.read_text())["resumed"] if config.exists() else 0)

    def host(self, rank: int) -> int:
        """Where a rank runs, a number of the lab."""
        return self.made.hosts.index((self.folder / f"host-{rank}").read_text())

    def pids(self, ranks) -> dict[int, str]:
        return {rank: (self.folder / f"pid-{rank}").read_text() for rank in ranks}

    def dead(self, rank: int) -> bool:
        stat = Path("/proc", self.pids([rank])[rank], "stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"

    def wait(self, what, limit_s: float = 300.0) -> None:
        until_s = time.monotonic() + limit_s
        while not what():
            assert time.monotonic() < until_s, self.said()
            time.sleep(0.05)

    def restarted(self, ranks: int) -> None:
        self.ranks, self.living = ranks, set(range(ranks))

    def act(self, what: str, drawn: random.Random) -> None:
        """Do one thing to one rank that lives, or to its host."""
        rank = drawn.choice(sorted(self.living))
        getattr(self, f"_{what}")(rank, drawn)

    def _stop(self, rank, drawn):
        self.stop(rank, drawn.uniform(0.2, 1.5))

    def _cut(self, rank, drawn):
        self.made.cut(self.host(rank))
        time.sleep(drawn.uniform(0.5, 4.0))
        self.made.mend(self.host(rank))

    def _slow(self, rank, drawn):
        self.made.slow(self.host(rank), "500kbit")
        time.sleep(drawn.uniform(1.0, 4.0))
        self.made.slow(self.host(rank))

    def _kill(self, rank, drawn):
        self.kill(rank)
        time.sleep(QUIET_S)

    def _silence(self, rank, drawn):
        """Cut a host off until its rank has found that out, a minute later or so: it gives each of the others
        the grace that it knows them to need. mpirun's first host would take mpirun along.
        """
        rank = drawn.choice([each for each in sorted(self.living) if self.host(each)])
        self.living.remove(rank)
        self.made.cut(self.host(rank))
        self.wait(lambda: self.dead(rank))
        self.made.mend(self.host(rank))
        time.sleep(QUIET_S)

    def _fill(self, rank, drawn):
        """Fill a rank's disk; it has to end, as nothing of it would be kept."""
        self.living.remove(rank)
        ballast = self.disk(self.made.hosts[self.host(rank)]) / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while not self.dead(rank):
                    file.write(bytes(4096))
            except OSError:
                self.wait(lambda: self.dead(rank))
        ballast.unlink()
        time.sleep(QUIET_S)

    def _die(self, rank, drawn):
        """Take a host away with its disk; not mpirun's own."""
        rank = drawn.choice([each for each in sorted(self.living) if self.host(each)])
        before, host = self.pids(range(self.ranks)), self.made.hosts[self.host(rank)]
        self.made.lose(self.host(rank))
        subprocess.run(["umount", "-l", str(self.disk(host))], check=True)
        self.disk(host).rename(self.folder / f"lost-{host}")
        self.wait(lambda: all(before[r] != pid for r, pid in self.pids(before).items()))
        self.wait(lambda: all(super(Hosts, self).step(r) > 2 for r in before))
        self.restarted(self.ranks)

    def _join(self, rank, drawn):
        """Have ranks in place of all that are lost, and one more the first time."""
        more = self.ranks == RANKS
        if not more and len(self.living) == self.ranks:
            return  # a new start has brought all of them back
        words = ["scale", f"={RANKS + 1}", "--run-dir", str(self.folder / "disk/run")]
        words += ["--host", f"{self.made.hosts[MORE]}:1"] if more else []
        words = [str(self.launcher), self.made.hosts[0], sys.executable, "-m", "pydec", *words]
        asked = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr + self.said()
        self.restarted(RANKS + 1)

    def summary(self) -> dict:
        """Of the rank that spoke at the end, on whatever disk that is; one that was cut off has failed."""
        said = [path for disk in self.disks() if (path := disk / "run/summary.json").exists()]
        found = [each for each in (json.loads(path.read_text()) for path in said) if each["status"] == "done"]
        assert len(found) == 1, said
        return found[0]

    def ledger(self, rank: int) -> Path:
        return self.disk(self.made.hosts[self.host(rank)]) / f"L/rank-{rank}"

    def stores(self) -> list[Store]:
        return [Store(RunDir(disk / "run")) for disk in self.disks()]

    def taken(self) -> int:
        steps = set()
        for disk in self.disks():
            for path in (disk / "run/metrics").glob("rank-*.jsonl"):
                for line in path.read_bytes().splitlines():
                    with contextlib.suppress(ValueError):  # a full disk cuts the last one
                        row = json.loads(line)
                        steps.update([(path.stem, row["step"])] if row["kind"] == "step" else [])
        return len(steps)

    def disks(self) -> list[Path]:
        """Those that are left."""
        return [disk for host in self.made.hosts if (disk := self.disk(host)).exists()]


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "chaos_task", raising=False)
    made = []
    with lab.Lab([lab.Link("1gbit")] * 8) as network:

        def make(steps):
            made.append(Hosts(tmp_path, network, steps))
            return made[-1]

        yield make
        for each in made:
            each.end()
            for disk in each.disks():
                subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
@pytest.mark.timeout(2400)
@pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing()))
@pytest.mark.parametrize(
    ("seed", "steps", "acts"),
    [
        (1, 2000, "stop stop cut cut slow slow kill fill die join"),
        (2, 8000, "stop cut slow kill silence fill join die join"),
    ],
)
def test_a_run_over_hosts_ends_as_if_nothing_had_happened(hosts, seed, steps, acts):
    run, drawn = hosts(steps), random.Random(seed)
    order = acts.split()
    drawn.shuffle(order)
    moments = sorted(drawn.sample(range(steps // 8, steps - steps // 5), len(order)))
    process = run.start(run.words(), **on_hosts(run, run.made))
    for moment, act in zip(moments, order, strict=True):
        run.until(moment, process)
        time.sleep(drawn.uniform(0.0, 0.02))  # anywhere in a step
        if act in DEADLY and len(run.living) <= FEWEST:
            run.act("join", drawn)
        print(f"step {max(map(run.step, run.living))}: {act}", flush=True)
        run.act(act, drawn)
    run.finish(process, 900.0)
