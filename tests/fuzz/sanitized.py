"""Run a Python program on kernels built with AddressSanitizer, UndefinedBehaviorSanitizer and coverage.

    python tests/fuzz/sanitized.py -m pytest tests/kernels tests/compress
    python tests/fuzz/sanitized.py tests/fuzz/decoders.py topk -max_total_time=60

Builds what is out of date into ``build/sanitize`` first (needs GCC). A read or write out of bounds, or
undefined behaviour, ends the program with a report and a status that is not 0. The installed pydec is left
alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitize"
SITE = BUILD / "site"
SHIM = BUILD / "libcoverage.so"

ASAN_OPTIONS = (
    "detect_leaks=0"  # Python frees little at its end
    ":verify_asan_link_order=0"  # the coverage library comes first
    ":quarantine_size_mb=16"
    ":allocator_may_return_null=1"  # too large an allocation is Python's MemoryError
)


def library(name: str) -> str:
    """Path of a library of GCC's, such as libasan.so."""
    compiler = os.environ.get("CXX", "g++")
    return subprocess.run(
        [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def build() -> None:
    """Build the instrumented package and the coverage library."""
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    source = str(Path(__file__).with_name("coverage.cpp"))
    flags = ["-std=c++20", "-O2", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, source, "-o", str(SHIM), "-ldl"], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    to = ["--no-build-isolation", "--no-deps", "--upgrade", f"--target={SITE}"]
    options = [f"-Cbuild-dir={BUILD / 'build'}", "-Ccmake.define.PYDEC_SANITIZE=ON"]
    subprocess.run([*pip, *to, *options, "-Ccmake.define.PYDEC_CUDA=off", str(ROOT)], check=True)


def environment() -> dict[str, str]:
    """Variables under which Python finds the instrumented package and the sanitizers come first."""
    packages = dict.fromkeys([sysconfig.get_path("platlib"), sysconfig.get_path("purelib")])
    return {
        **os.environ,
        "LD_PRELOAD": f"{SHIM} {library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": ASAN_OPTIONS,
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",  # Python's own pools would hide overruns
        "PYTHONPATH": os.pathsep.join([str(SITE), *packages]),
        "PYDEC_COVERAGE": str(SHIM),
    }


OVERRUN = """
import numpy as np
from pydec import kernels
kernels.sqnorm(np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (4096,)))
"""


def prove() -> None:
    """Raise SystemExit unless a read beyond an array, which its NumPy header hides, is seen."""
    command = [sys.executable, "-S", "-c", OVERRUN]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=SITE, env=environment())
    if run.returncode == 0 or "AddressSanitizer" not in run.stderr:
        raise SystemExit(f"the sanitizers see nothing: exit status {run.returncode}\n{run.stderr[-2000:]}")


def main(arguments: list[str]) -> int:
    """Build, then run; returns the program's exit status."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    build()
    prove()
    paths = [str((ROOT / part).resolve()) if (ROOT / part).exists() else part for part in arguments]
    if arguments[:2] == ["-m", "pytest"]:
        paths += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
    # -S: no .pth file, which would find an editable install first. Not in the root, which holds the sources.
    command = [sys.executable, "-S", *paths]
    return subprocess.run(command, check=False, cwd=SITE, env=environment()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
