"""A real Slurm on this machine: slurmctld on one network namespace, a slurmd on each of the others.

For tests and benchmarks only. Needs root, iproute2 and Debian's packages ``PACKAGES``; touches no Slurm that
the machine may have. Everything runs inside the hosts of a ``netlab.Lab`` and goes with them; daemons also
end with the process that made the cluster, however it ends.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..netlab import lab as netlab
from . import config

PACKAGES = "slurmctld slurmd slurm-client munge libpmix-dev"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "setpriv")
_PLUGINS = ("/usr/lib/*/slurm*/mpi_pmix*.so", "/usr/lib/*/pmix2/lib/libpmix.so")
_LIMIT_S = 600.0
_LOOK_S = 0.1
_RATE = "1gbit"


def missing() -> str | None:
    """Why no cluster can be made here, and what to do; None if one can."""
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_path({})) is None]
    absent += [pattern for pattern in _PLUGINS if not glob.glob(pattern)]
    if absent:
        return f"{absent[0]} not found; on Debian and Ubuntu: apt-get install {PACKAGES}"
    return netlab.missing()


class Cluster:
    """A head and nodes; a context manager.

    Args:
        nodes: how many.
        cpus, gpus: of each, as Slurm counts them; this machine may have fewer, or none.
        rate: of each link.

    Raises:
        RuntimeError: on entering, the cluster cannot be made; whatever was made is gone again.
    """

    def __init__(self, nodes: int, *, cpus: int = 2, gpus: int = 0, rate: str = _RATE) -> None:
        self.lab = netlab.Lab([netlab.Link(rate)] * (nodes + 1))
        self._cpus, self._gpus = cpus, gpus
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._lost: set[int] = set()
        self._stack = contextlib.ExitStack()

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes, which are those of their hosts."""
        return self.lab.hosts[1:]

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            self.folder = Path(tempfile.mkdtemp(prefix=f"{self.lab.hosts[0]}-slurm-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self._end)
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _begin(self) -> None:
        hosts = self.lab.hosts
        self.folder.chmod(0o755)  # munge's socket is for all users
        for name in ["state", *(f"{node}/{part}" for node in self.nodes for part in ("spool", "tmp"))]:
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        addresses = {host: self.lab.address(number) for number, host in enumerate(hosts)}
        slurm_conf = config.slurm_conf(self.folder, addresses, self._cpus, self._gpus)
        (self.folder / "slurm.conf").write_text(slurm_conf)
        (self.folder / "cgroup.conf").write_text(config.CGROUP)
        (self.folder / "gres.conf").write_text(config.gres_conf(self._gpus))
        socket = self.folder / "munge.socket"
        files = {"socket": socket, "key-file": key} | {
            f"{name}-file": self.folder / f"munge.{name}" for name in ("pid", "log", "seed")
        }
        self._daemon(0, "munged", "--foreground", "--force", *(f"--{key}={at}" for key, at in files.items()))
        self.until(socket.exists, "munged made no socket")
        self._daemon(0, "slurmctld", "-D")
        for node in range(len(self.nodes)):
            self.start_node(node)
        self.until(lambda: [*self.states().values()].count("idle") == len(self.nodes), "nodes are not idle")

    def _daemon(self, host: int, *words: str) -> subprocess.Popen[bytes]:
        inside = ["setpriv", "--pdeathsig", "KILL", *self.lab.inside(host, words)]
        with open(self.folder / f"{self.lab.hosts[host]}-{words[0]}.out", "ab") as said:
            daemon = subprocess.Popen(
                inside, env=self.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        self._daemons.append(daemon)
        return daemon

    def _end(self) -> None:
        self.lab.kill()
        for daemon in self._daemons:
            daemon.wait()

    def environment(self, **more: str) -> dict[str, str]:
        """Variables of a user of this cluster: no job's around this process, one thread a rank."""
        job = re.compile("(SLURM|SBATCH|SALLOC|PMI|PMIX|OMPI_COMM|OMPI_MCA)_")
        env = {name: value for name, value in self.lab.environment().items() if not job.match(name)}
        return {**env, "PATH": _path(env), "SLURM_CONF": str(self.folder / "slurm.conf"), **more}

    def start(self, words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on the head.

        Args:
            words: of the command.
            options: of ``subprocess.Popen``; ``env`` is on top of ``environment``.
        """
        env = self.environment(**options.pop("env", {}))
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        inside = self.lab.inside(0, words)
        return subprocess.Popen(
            inside, env=env, text=True, errors="replace", start_new_session=True, **{**streams, **options}
        )

    def run(self, words: Sequence[str], *, timeout_s: float = _LIMIT_S, **options: Any) -> str:
        """Run a command on the head and return its standard output.

        Raises:
            RuntimeError: it failed or took too long; shows what it wrote.
        """
        process = self.start(words, **options)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nit took more than {timeout_s:g} s"
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{(out + err)[-3000:]}")
        return out

    def submit(self, *words: str, **options: Any) -> int:
        """Give a job to sbatch; returns its number."""
        return int(self.run(["sbatch", "--parsable", *words], **options).partition(";")[0])

    def job(self, number: int) -> Mapping[str, str]:
        """What ``scontrol show job`` says, by name, such as ``JobState`` and ``Restarts``."""
        said = self.run(["scontrol", "--oneliner", "show", "job", str(number)])
        return dict(re.findall(r"(\S+?)=(\S*)", said))

    def states(self) -> dict[str, str]:
        """State of each node, in small letters: idle, allocated, down*, ..."""
        said = self._ask("sinfo", "--noheader", "--Node", "--format", "%N %T")
        return dict(tuple(line.split()) for line in said.splitlines())  # type: ignore[misc]

    def start_node(self, node: int) -> None:
        """Start a node's slurmd, at first or when it had died."""
        self._nodes[node] = self._daemon(node + 1, "slurmd", "-D", "-N", self.nodes[node])

    def kill_node(self, node: int) -> None:
        """All processes of a node die at one moment, its slurmd too; the kernel closes their connections."""
        self._lost.add(node)
        self.lab.kill(node + 1)

    def silence_node(self, node: int) -> None:
        """A node's cable is cut: nothing is closed, nothing arrives."""
        self._lost.add(node)
        self.lab.cut(node + 1)

    def revive(self) -> None:
        """Make all nodes whole again: cables and slurmd; no job is left, and Slurm thinks well of them."""
        for node in sorted(self._lost):
            self.lab.mend(node + 1)
            self._nodes[node].kill()  # one that was cut off says only as it starts that it is there again
            self._nodes[node].wait()
            self.start_node(node)
        self._lost.clear()
        self.run(["scancel", "--user=root"])
        self.until(lambda: not self._ask("squeue", "--noheader"), "jobs are left")
        names = ",".join(self.nodes)
        for state in ("down", "idle"):  # the first also ends what a node still says to be ending
            self._ask("scontrol", "update", f"NodeName={names}", f"State={state}", "Reason=revived")
        self.until(lambda: [*self.states().values()].count("idle") == len(self.nodes), "nodes are not idle")

    def _ask(self, *words: str) -> str:
        """What a command says, whether it likes the question or not."""
        return self.start(words).communicate()[0]

    def processes(self) -> dict[int, str]:
        """Processes on the nodes that are no daemon of Slurm's: command line by process id."""
        found = {}
        for host in self.lab.hosts:
            listed = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True)
            for pid in map(int, listed.stdout.split()):
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if words[0] and not re.search(rb"munged|slurm(ctld|d|scriptd)\b", b" ".join(words[:2])):
                        found[pid] = b" ".join(words).decode(errors="replace")
        return found

    def kill_processes(self) -> None:
        """End what ``processes`` names."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def until(self, what: Callable[[], bool], otherwise: str, limit_s: float = _LIMIT_S) -> None:
        """Wait for something.

        Raises:
            RuntimeError: it did not happen in time; shows what the daemons have logged.
        """
        until_s = time.monotonic() + limit_s
        while not what():
            if time.monotonic() > until_s:
                raise RuntimeError(f"{otherwise} within {limit_s:g} s\n" + "\n".join(self._logged()))
            time.sleep(_LOOK_S)

    def _logged(self) -> Iterator[str]:
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*/slurmd.log")]):
            yield f"{path.name} of {path.parent.name}: {path.read_text(errors='replace')[-1500:]}"


def _path(env: Mapping[str, str]) -> str:
    """Where programs are: daemons are outside of a user's usual path."""
    return f"{env.get('PATH', os.environ.get('PATH', ''))}:/usr/sbin:/sbin"
