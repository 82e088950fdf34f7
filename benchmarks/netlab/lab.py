"""Hosts as network namespaces on one bridge, each behind links of a chosen rate; gone when the lab is closed.

Everything that a lab makes has a name that starts with ``pd`` and the id of the process that made it, so that
labs do not meet, and a lab whose process is gone is removed by the next one. Needs root and iproute2.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SUBNET = "10.213.7"
_RATE = re.compile(r"^[1-9][0-9]*(kbit|mbit|gbit)$")
_SETTLE_S = 2.0  # Open MPI looks at interfaces as it starts; links need this long to come up
_KILL_S = 5.0


@dataclass(frozen=True)
class Link:
    """What lies between one host and the others.

    Args:
        up: rate from the host, such as "100mbit".
        down: rate to the host; as ``up`` if empty.

    Raises:
        ValueError: a rate that tc does not read.
    """

    up: str
    down: str = ""

    def __post_init__(self) -> None:
        for rate in (self.up, self.down or self.up):
            if not _RATE.match(rate):
                raise ValueError(f"a rate must read like 100mbit or 1gbit, got {rate!r}")


def bits_per_s(rate: str) -> float:
    """A rate in bits per second."""
    number, unit = rate[:-4], rate[-4:]
    return float(number) * {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}[unit]


def missing() -> str | None:
    """Why no lab can be made here, and what to do; None if one can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root; run this as root, in a container or virtual machine"
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            return f"{program} not found; on Debian and Ubuntu: apt-get install iproute2 util-linux"
    probe = f"pd{os.getpid()}p"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        problem = done.stderr.strip()
        return f"network namespaces cannot be made here: {problem}; run this where CAP_SYS_ADMIN is allowed"
    _ip("netns", "del", probe)
    return None


class Lab:
    """Hosts h0, h1, ... with addresses 10.213.7.1, .2, ...; a context manager.

    Args:
        links: one for each host.

    Raises:
        RuntimeError: the hosts cannot be made; whatever was made is gone again.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self._prefix = f"pd{os.getpid()}"
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        self._made = False
        self._lost: set[int] = set()

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts."""
        return [f"{self._prefix}h{i}" for i in range(len(self.links))]

    @staticmethod
    def address(host: int) -> str:
        """Address of a host."""
        return f"{SUBNET}.{host + 1}"

    def __enter__(self) -> Lab:
        _remove_leftovers()
        atexit.register(self.close)
        self._made = True
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        time.sleep(_SETTLE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        switch = f"{self._prefix}sw"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        _ip("-n", switch, "link", "set", "lo", "up")
        for number, (host, link) in enumerate(zip(self.hosts, self.links, strict=True)):
            _ip("netns", "add", host)
            _ip("-n", host, "link", "set", "lo", "up")
            _ip(
                "-n",
                switch,
                "link",
                "add",
                f"p{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host,
            )
            _ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            _ip("-n", host, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _shape(host, "eth0", link.up)
            _shape(switch, f"p{number}", link.down or link.up)
        names = "".join(f"{self.address(i)} {host}\n" for i, host in enumerate(self.hosts))
        for host in self.hosts:  # what `ip netns exec` mounts over /etc/hosts
            folder = Path("/etc/netns") / host
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        launcher = self.launcher
        launcher.write_text(
            "#!/bin/bash\n"
            "# In place of ssh: HOST COMMAND...\n"
            "while [[ $1 == -* ]]; do shift; done\n"
            "host=$1; shift\n"
            'exec ip netns exec "$host" unshare -u bash -c "hostname $host; $*"\n'
        )
        launcher.chmod(0o755)

    def inside(self, host: int, command: Sequence[str]) -> list[str]:
        """The command that runs ``command`` on a host."""
        name = self.hosts[host]
        return [
            "ip",
            "netns",
            "exec",
            name,
            "unshare",
            "-u",
            "bash",
            "-c",
            f'hostname {name}; exec "$@"',
            "-",
            *command,
        ]

    def mpirun(
        self, command: Sequence[str], *, ranks_per_host: int = 1, flags: Sequence[str] = ()
    ) -> list[str]:
        """The command that runs ``command`` on all hosts under Open MPI over TCP."""
        mpirun = Path(sys.executable).with_name("mpirun")
        hosts = ",".join(f"{host}:{ranks_per_host}" for host in self.hosts)
        options = ["--host", hosts, "-n", str(ranks_per_host * len(self.hosts)), "--bind-to", "none"]
        options += ["--prtemca", "plm_ssh_agent", str(self.launcher)]
        options += ["--prtemca", "prte_if_include", "eth0"]
        options += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "eth0"]
        options += ["--mca", "btl_tcp_flags", "send,inplace", "--mca", "mpi_yield_when_idle", "1"]
        for name in (
            "PATH",
            "PYTHONPATH",
            "LD_LIBRARY_PATH",
            "VIRTUAL_ENV",
            "OMP_NUM_THREADS",
            "GLOO_SOCKET_IFNAME",
        ):
            options += ["-x", name]
        return self.inside(0, [str(mpirun), *options, *flags, *command])

    def environment(self, threads: int = 1) -> dict[str, str]:
        """Variables that a job on these hosts needs, on top of this process's own."""
        beside = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{beside}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "OMP_NUM_THREADS": str(threads),
            "GLOO_SOCKET_IFNAME": "eth0",
            "MASTER_ADDR": self.address(0),
            "PYTHONUNBUFFERED": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_ALLOW_RUN_AS_ROOT": "1",
            "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float,
        ranks_per_host: int = 1,
        threads: int = 1,
        flags: Sequence[str] = (),
    ) -> str:
        """Run a command on all hosts, with more flags for mpirun, and return its standard output.

        Raises:
            RuntimeError: it failed or took too long; shows the end of what it wrote. Nothing is left running.
        """
        words = self.mpirun(command, ranks_per_host=ranks_per_host, flags=flags)
        job = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(threads),
            start_new_session=True, cwd=self._folder,
        )  # fmt: skip
        try:
            out, err = job.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = job.communicate()
            raise RuntimeError(f"{' '.join(command)} took more than {timeout_s} s:\n{err[-2000:]}") from None
        except BaseException:
            self.kill()
            job.wait()
            raise
        if job.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {job.returncode}:\n{(out + err)[-3000:]}")
        return out

    def bytes_sent(self) -> Mapping[str, int]:
        """Bytes that left each host so far, headers of all layers included."""
        return {host: _counter(host, "tx_bytes") for host in self.hosts}

    @property
    def launcher(self) -> Path:
        """The program that stands in for ssh, called as LAUNCHER HOST COMMAND."""
        return self._folder / "launcher"

    def cut(self, host: int) -> None:
        """Take a host's cable out: nothing arrives any more, and nothing is closed."""
        _ip("-n", self.hosts[host], "link", "set", "eth0", "down")

    def mend(self, host: int) -> None:
        """Put a host's cable in again."""
        _ip("-n", self.hosts[host], "link", "set", "eth0", "up")

    def slow(self, host: int, rate: str = "") -> None:
        """Give a host's link another rate, both ways; its own again without one."""
        link = self.links[host]
        _shape(self.hosts[host], "eth0", rate or link.up, "change")
        _shape(f"{self._prefix}sw", f"p{host}", rate or link.down or link.up, "change")

    def lose(self, host: int) -> None:
        """Kill everything on a host and take the host away; another lab has to be made to have it back."""
        self._lost.add(host)
        _kill(self.hosts[host])
        _ip("netns", "del", self.hosts[host])
        shutil.rmtree(Path("/etc/netns") / self.hosts[host], ignore_errors=True)

    def kill(self, *hosts: int) -> None:
        """End every process on these hosts, on all of them if none is named."""
        for number in hosts or range(len(self.links)):
            if number not in self._lost:
                _kill(self.hosts[number])

    def close(self) -> None:
        """Remove the hosts and everything on them; idempotent."""
        if self._made:
            self._made = False
            _remove(self._prefix)
            shutil.rmtree(self._folder, ignore_errors=True)
            atexit.unregister(self.close)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _shape(namespace: str, device: str, rate: str, verb: str = "add") -> None:
    """Limit what leaves a device: a bucket of 5 ms, and at most 50 ms of queue."""
    burst = max(32 << 10, int(bits_per_s(rate) / 8 * 0.005))
    bucket = ["rate", rate, "burst", str(burst), "latency", "50ms"]
    _run("tc", "-n", namespace, "qdisc", verb, "dev", device, "root", "tbf", *bucket)


def _counter(host: str, name: str) -> int:
    return int(_run("ip", "netns", "exec", host, "cat", f"/sys/class/net/eth0/statistics/{name}"))


def _namespaces(prefix: str) -> Iterator[str]:
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        if re.fullmatch(re.escape(prefix) + r"(sw|h\d+|p)", name):
            yield name


def _kill(namespace: str) -> None:
    deadline = time.monotonic() + _KILL_S
    while pids := [int(pid) for pid in _ip("netns", "pids", namespace).split()]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)


def _remove(prefix: str) -> None:
    """Remove the namespaces of one lab, with their processes, links and files."""
    for name in list(_namespaces(prefix)):
        with contextlib.suppress(RuntimeError):
            _kill(name)
            _ip("netns", "del", name)
        shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove labs whose process has ended without removing them."""
    owners = {
        match[1]
        for line in _ip("netns", "list").splitlines()
        if (match := re.match(r"pd(\d+)(?:sw|h\d+|p)\b", line))
    }
    for owner in owners:
        if not Path("/proc", owner).exists():
            _remove(f"pd{owner}")
