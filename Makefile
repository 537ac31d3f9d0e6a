# Each target sets up all it needs on a fresh machine, once: system libraries, .venv, pinned packages, seehear itself.
#
#   make demo        the whole pipeline on a synthetic corpus, in minutes, into ./demo
#   make test        the tests
#   make test-avx2   the numerical tests and a short training, with the kernels of a processor that has no more than AVX2
#   make check       formatting, linting, types, direction of imports
#   make clean       forget the environment (./demo, ./runs and ./corpora stay)
#
# PYTHON=python3.12 chooses the interpreter. TORCH_INDEX chooses the build of PyTorch, where plain pip picks another:
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON      ?= python3
TORCH_INDEX ?=

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SYSTEM    := $(VENV)/.system
PIP       := $(BIN)/python -m pip --disable-pip-version-check install -qq

# What MediaPipe opens on Linux, and the packages of Debian and Ubuntu that hold it.
LIBRARIES := "libEGL.so.1", "libGLESv2.so.2"
PACKAGES  := libegl1 libgles2

# Training allocates and frees large blocks all the time; glibc hands them out faster in huge pages (Linux).
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

# What depends on kernels: the mathematics, the network, the search, and a training from clips to words.
NUMERICAL := $(patsubst %,tests/test_%.py,devices equations objectives reference model search decoding end_to_end)

.PHONY: demo test test-avx2 check clean libraries has-libraries
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(HUGE_PAGES) $(BIN)/seehear demo --out demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest

# oneDNN and PyTorch choose their kernels by processor; a green run with one set says nothing about the other.
test-avx2: $(INSTALLED)
	OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/pytest $(NUMERICAL)

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --durations=0 tests/test_layers.py

clean:
	rm -rf $(VENV)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: seehear needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: this Python cannot make environments (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(SYSTEM): $(VENV)/pyvenv.cfg
	@$(MAKE) --no-print-directory --silent has-libraries 2>/dev/null || $(MAKE) --no-print-directory libraries
	@touch $@

has-libraries:
	@$(BIN)/python -c 'import ctypes, sys; sys.platform != "linux" or [ctypes.CDLL(name) for name in ($(LIBRARIES))]'

libraries:
	@command -v apt-get >/dev/null || \
		{ echo 'error: MediaPipe needs $(LIBRARIES): install them with your package manager' >&2; exit 1; }
	@if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else \
		echo "error: MediaPipe needs system libraries: sudo apt-get install $(PACKAGES)" >&2; exit 1; fi; \
	echo "installing $(PACKAGES)"; $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq --yes --no-install-recommends $(PACKAGES) >/dev/null
	@$(MAKE) --no-print-directory --silent has-libraries

$(INSTALLED): $(SYSTEM) pyproject.toml constraints.txt
	@echo "installing the pinned packages into $(VENV) (minutes: PyTorch is large)"
	@$(PIP) --constraint constraints.txt setuptools
	@$(if $(TORCH_INDEX),$(PIP) --constraint constraints.txt --index-url $(TORCH_INDEX) --no-deps torch)
	@$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@
