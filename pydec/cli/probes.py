"""What ``pydec doctor`` asks in processes of their own: programs that print one JSON object."""

from __future__ import annotations

KERNELS = """
import json
try:
    from pydec import _native, kernels
    try:
        from pydec import _native_cuda
        ready = _native_cuda.device_count() > 0
    except (ImportError, RuntimeError):
        ready = False
    answer = dict(path=_native.__file__, targets=kernels.targets(), target=kernels.target(),
                  cuda=kernels.cuda_status(), cuda_ready=ready)
except BaseException as error:
    answer = dict(error=f"{type(error).__name__}: {error}".partition(chr(10))[0])
print(json.dumps(answer))
"""

MPI_LIBRARY = """
import json
try:
    import mpi4py
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI
    levels = ("single", "funneled", "serialized", "multiple")
    given = MPI.Init_thread(MPI.THREAD_MULTIPLE)
    level = next(name for name in levels if getattr(MPI, "THREAD_" + name.upper()) == given)
    MPI.COMM_SELF.Set_errhandler(MPI.ERRORS_RETURN)
    try:
        MPI.COMM_SELF.Get_failed().Free()
        ulfm = True
    except BaseException:
        ulfm = False
    try:
        with open("/proc/self/maps") as maps:
            path = next((line.split()[-1] for line in maps if "/libmpi" in line), "")
    except OSError:
        path = ""
    try:
        from pydec.comm.gpu import takes_gpu_memory
    except ImportError:  # told of under native code
        takes_gpu_memory = bool
    vendor, numbers = MPI.get_vendor()
    answer = dict(mpi4py=mpi4py.__version__, vendor=vendor,
                  version=".".join(map(str, numbers)), path=path, thread_level=level, ulfm=ulfm,
                  gpu=takes_gpu_memory())
    MPI.Finalize()
except BaseException as error:
    answer = dict(error=f"{type(error).__name__}: {error}".partition(chr(10))[0])
print(json.dumps(answer))
"""

TORCH = """
import json
try:
    import torch
    answer = dict(version=torch.__version__, cuda=torch.version.cuda,
                  devices=torch.cuda.device_count() if torch.cuda.is_available() else 0)
except BaseException as error:
    answer = dict(error=f"{type(error).__name__}: {error}".partition(chr(10))[0])
print(json.dumps(answer))
"""
