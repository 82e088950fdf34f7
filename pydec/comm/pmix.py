"""What a rank that srun starts must arrange before MPI begins; mpirun does it for its own ranks.

Open MPI under Slurm is a client of Slurm's PMIx plugin, and takes its parameters from the environment:

- ``OMPI_MCA_mpi_ft_enable=1``, set by ``pydec run`` or by the user, asks it to live on when a rank dies.
  Under mpirun ``--with-ft ulfm`` stands for this and a list of other parameters, which ``prepare`` sets.
- Slurm's plugin kills the step at every report of a failure (``_errhandler`` in Slurm 22.05's
  ``pmixp_client_v2.c``), and Open MPI reports each rank that it finds dead. A small library keeps these
  reports from it, see ``csrc/pmix/quiet.cpp``. Without it nobody would survive, and fault tolerance is off.
- An Open MPI from the package index was built for another directory than the one it is in.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from pydec.comm.detect import fault_tolerant, launch

LIBRARY = "_pmix_quiet.so"
_ALWAYS = {"mpi_yield_when_idle": "1"}  # as pydec run has it: ranks may share cores
_TOLERANT = {
    # Open MPI 5's own list for fault tolerance, share/openmpi/amca-param-sets/ft-mpi
    "btl_base_warn_peer_error": "0",
    "pml": "ob1",
    "btl": "^usnic",
    "coll": "^hcoll,portals4",
    "mtl": "^ofi,portals4,psm2",
    # and what pydec.launch.tolerance adds, with the reasons
    "async_mpi_finalize": "1",
    "btl_tcp_flags": "send,inplace",
}
_obstacle = ""


def library() -> Path | None:
    """The library beside pydec's compiled module; None where it was not built."""
    native = importlib.util.find_spec("pydec._native")
    if native is None or native.origin is None:
        return None
    path = Path(native.origin).with_name(LIBRARY)
    return path if path.exists() else None


def prepare(environ: MutableMapping[str, str] | None = None, prefix: str = sys.prefix) -> None:
    """Arrange what is missing, if srun has started this process; what the user has set stays.

    Call it before MPI is initialised.

    Args:
        environ: to read and change; the process's own if None.
        prefix: where Python packages put their libraries.
    """
    global _obstacle
    env = os.environ if environ is None else environ
    found = launch(env)
    if found is None or found.launcher != "Slurm":
        return
    if any(Path(prefix, "lib").glob("libmpi.so*")):
        env.setdefault("OPAL_PREFIX", prefix)
    given = dict(_ALWAYS)
    if fault_tolerant(env):
        _obstacle = _keep_quiet(library())
        if _obstacle:
            env["OMPI_MCA_mpi_ft_enable"] = "0"
        else:
            given |= _TOLERANT
    for name, value in given.items():
        env.setdefault(f"OMPI_MCA_{name}", value)


def obstacle() -> str:
    """Why the others do not live on when a rank dies, although that was asked for; "" if they do."""
    return _obstacle


def _keep_quiet(path: Path | None) -> str:
    """Load the library into the global scope; returns why it does not work, or ""."""
    if path is None:
        return f"{LIBRARY} is missing, so Slurm would end the job; build pydec again: pip install ."
    try:
        ours = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"{path} cannot be loaded ({error}), so Slurm would end the job"
    used = ctypes.CDLL(None).PMIx_Notify_event  # as the dynamic linker finds it for Open MPI
    if ctypes.cast(used, ctypes.c_void_p).value != ctypes.cast(ours.PMIx_Notify_event, ctypes.c_void_p).value:
        return "MPI was loaded before pydec.init(), so Slurm would end the job; import mpi4py.MPI after it"
    return ""
