"""The choice of the instruction set, and what is said when something is missing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pydec import kernels
from pydec.errors import ConfigError

PRINT_TARGET = "from pydec import kernels; print(kernels.target())"


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_best_target_is_chosen_and_any_can_be_set():
    names = kernels.targets()
    assert names[0] == ("v2" if platform.machine() == "x86_64" else "baseline")
    assert python(PRINT_TARGET, PYDEC_SIMD="").stdout.strip() == names[-1]
    for name in names:
        kernels.set_target(name)
        assert kernels.target() == name


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(ConfigError, match=f"unknown kernel target 'avx9'.*{', '.join(kernels.targets())}"):
        kernels.set_target("avx9")


def test_the_environment_forces_a_target():
    first = kernels.targets()[0]
    done = python(PRINT_TARGET, PYDEC_SIMD=first)
    assert done.stdout.strip() == first, done.stderr


def test_a_wrong_environment_is_one_clear_error():
    done = python("import pydec.kernels", PYDEC_SIMD="sse9")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "PYDEC_SIMD='sse9' is not available" in last
    assert ", ".join(kernels.targets()) in last


def test_importing_pydec_loads_nothing_compiled():
    done = python("import sys, pydec; print('pydec._native' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_missing_module_says_how_to_build_it():
    done = python("import sys; sys.modules['pydec._native'] = None; import pydec.kernels")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pydec.errors.SetupError")
    assert "cmake --build build" in last


def test_cuda_status_is_one_line_with_the_way_out():
    status = kernels.cuda_status()
    assert "\n" not in status
    assert "CUDA" in status
