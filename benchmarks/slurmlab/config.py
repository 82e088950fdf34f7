"""What the daemons of a cluster on one machine read: ``slurm.conf`` and ``cgroup.conf``.

Hosts share a kernel, a process table and a file system, so each keeps its files in a folder of its own, and
processes are tracked by their parents: inside ``ip netns exec`` no control groups are mounted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CGROUP = "CgroupPlugin=cgroup/v1\n"  # named, because looking which there is fails; nothing uses it
_CONFIG = """
ClusterName=pydec
SlurmctldHost={head}({head_address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential_s}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n/spool
TmpFS={folder}/%n/tmp
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout={down_s}
KillWait={kill_s}
InactiveLimit=0
GresTypes=gpu
"""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
"""Character devices in the place of GPUs: Slurm hands out their numbers, and nobody opens them."""
_CREDENTIAL_S = 15  # a job that was requeued waits for so long and a second; 120 without it
_DOWN_S = 20  # after which a node that does not answer is down; 300 without it
_KILL_S = 60  # from SIGTERM to SIGKILL, which a busy machine may need; 30 without it


def gres_conf(gpus: int) -> str:
    """The text of ``gres.conf``, empty without GPUs; there are at most four."""
    return "".join(f"Name=gpu File={device}\n" for device in _DEVICES[:gpus])


def slurm_conf(folder: Path, addresses: Mapping[str, str], cpus: int, gpus: int = 0) -> str:
    """The text of ``slurm.conf``.

    Args:
        folder: where the daemons keep their files.
        addresses: by host; the first is the one that slurmctld and the user are on, the others are nodes.
        cpus, gpus: that each node says to have, whatever this machine has.
    """
    head, *nodes = addresses
    text = _CONFIG.format(
        folder=folder,
        head=head,
        head_address=addresses[head],
        credential_s=_CREDENTIAL_S,
        down_s=_DOWN_S,
        kill_s=_KILL_S,
    )
    has = f"CPUs={cpus}" + (f" Gres=gpu:{gpus}" if gpus else "")
    lines = [f"NodeName={node} NodeAddr={addresses[node]} {has} State=UNKNOWN" for node in nodes]
    lines += [f"PartitionName=all Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE State=UP"]
    return text + "\n".join(lines) + "\n"
