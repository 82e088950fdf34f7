"""Which hosts can still start a process: asked through the program that starts Open MPI's daemons."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence

from pydec.launch.supervise import Signals

ANSWER_S = 10.0
_LOOK_S = 0.05
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
_SRUN = ("srun", "--overlap", "-N1", "-n1", "--immediate=5", "-w")


def question(host: str, agent: str = "", *, slurm: bool = False) -> list[str]:
    """The command that does nothing on a host.

    Args:
        host: which.
        agent: of ``--launch-agent``; "" is ssh, or srun inside an allocation.
        slurm: whether this process is in a Slurm allocation.
    """
    return [*([agent] if agent else _SRUN if slurm else _SSH), host, "true"]


def answering(
    hosts: Sequence[str],
    signals: Signals,
    agent: str = "",
    *,
    slurm: bool = False,
    timeout_s: float = ANSWER_S,
) -> set[str]:
    """Hosts that answer in time; this one does without being asked.

    Args:
        hosts: to ask, all at once.
        signals: a signal ends the waiting.
        agent, slurm: see ``question``.
        timeout_s: for all of them together.
    """
    here = {"localhost", "127.0.0.1", socket.gethostname(), socket.gethostname().partition(".")[0]}
    found = {host for host in hosts if host in here}
    asked: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for host in set(hosts) - found:
            try:
                asked[host] = subprocess.Popen(
                    question(host, agent, slurm=slurm),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                continue  # no such agent: nobody can be started there
        for _ in range(round(timeout_s / _LOOK_S)):
            if signals.received or all(process.poll() is not None for process in asked.values()):
                break
            signals.sleep(_LOOK_S)
        return found | {host for host, process in asked.items() if process.poll() == 0}
    finally:
        for process in asked.values():
            process.kill()
            process.wait()
