# make train   a first training run on 4 ranks, about a minute after installing
# make test    the whole suite, MPI tests included
# make lint    ruff, mypy, import-linter, clang-format
# make docs    docs/ as a site in build/site, warnings are errors
# make sanitize  the kernels' and compressors' tests under AddressSanitizer and UndefinedBehaviorSanitizer
# make fuzz    every decoder, FUZZ_SECONDS each, guided by coverage
# make bench   the kernel benchmarks of this machine
# make clean   remove the virtual environment and everything built
#
# Everything is installed into .venv, with the versions of constraints.txt. Needs python3 (3.10 or newer,
# with venv and headers), a C++ compiler, make, and a package index that pip can reach.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
RANKS ?= 4
TRAIN_FLAGS ?= --compare-solo
FUZZ_SECONDS ?= 20
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find csrc cmake -type f 2>/dev/null)

BUILD_TOOLS := scikit-build-core pybind11 cmake ninja

# Python files are used in place, so only what is compiled or declared needs a new install.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_USER

.PHONY: train install test docs lint sanitize fuzz bench clean

train: $(VENV)/.installed
	$(BIN)/pydec run -n $(RANKS) train stdlib-lm $(TRAIN_FLAGS)

install: $(VENV)/.installed

# first what shares a processor well, on all of them, then what starts MPI jobs, one at a time
test: $(VENV)/.test-extra
	@status=0; \
	check() { echo "$$*"; "$$@" || status=1; }; \
	check $(BIN)/python -m pytest -m "not slow and not job" -n auto --maxprocesses 8 --dist worksteal $(PYTEST_FLAGS); \
	check $(BIN)/python -m pytest -m "not slow and job" $(PYTEST_FLAGS); \
	exit $$status

docs: $(VENV)/.test-extra
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

lint: $(VENV)/.lint-extra
	@status=0; \
	check() { echo "$$*"; "$$@" || status=1; }; \
	check $(BIN)/ruff check .; \
	check $(BIN)/ruff format --check .; \
	check $(BIN)/mypy; \
	check $(BIN)/lint-imports; \
	check $(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh'); \
	exit $$status

sanitize: $(VENV)/.test-extra
	$(BIN)/python tests/fuzz/sanitized.py -m pytest tests/kernels tests/compress -q --timeout 600 -n auto --maxprocesses 8 \
		--ignore tests/kernels/test_ops.py # what torch.compile makes of the same kernels: minutes, nothing native

fuzz: $(VENV)/.fuzz-extra
	$(BIN)/python tests/fuzz/sanitized.py tests/fuzz/decoders.py all -max_total_time=$(FUZZ_SECONDS)

bench: $(VENV)/.test-extra
	$(BIN)/pydec bench kernels $(BENCH_FLAGS)

clean:
	rm -rf $(VENV) build dist wheelhouse .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find pydec tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "pydec: $(PYTHON) not found; install Python 3.10 or newer, or name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "pydec: needs Python 3.10 or newer, $(PYTHON) is `$(PYTHON) -V 2>&1`; name another one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "pydec: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "pydec: Python.h of $(PYTHON) not found; on Debian and Ubuntu: apt-get install python3-dev" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || { echo "pydec: no C++ compiler found; on Debian and Ubuntu: apt-get install g++, or set CXX" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet $(BUILD_TOOLS)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(PIP) --no-build-isolation --editable '.[mpi]'
	@touch $@

$(VENV)/.test-extra: $(VENV)/.installed pyproject.toml
	$(PIP) --quiet 'pydec-train[test]'
	@touch $@

$(VENV)/.fuzz-extra: $(VENV)/.installed pyproject.toml
	$(PIP) --quiet 'pydec-train[fuzz]'
	@touch $@

$(VENV)/.lint-extra: $(VENV)/.installed pyproject.toml
	$(PIP) --quiet 'pydec-train[lint,test]'
	@touch $@
