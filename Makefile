# make train: set up, then train K2-MAPPO on smax/2s3z until it wins, and draw the curve.
# make test:  set up, then run every test.
# Both start from nothing but Python 3.11 or 3.12, a C++ compiler and make, and install into $(VENV) alone.
# make smac:  K2-MAPPO against MAPPO on StarCraft II's 2s3z; needs the game (docs/smac.md).
# make lint, make bench: style and types; the benchmarks (BENCH="-f REGEX ..." passes arguments on). make quick-bench:
# the short ones, which fail where something is far slower than what it is measured against.

SHELL := /bin/bash
VENV ?= .venv
RUN := $(VENV)/bin
STEPS ?= 850000

# The first of these that runs and is of a supported version; a name on the PATH may be a stub that only fails.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& command -v "$$python" && break; done)

.PHONY: train test smac lint bench quick-bench clean
.DEFAULT_GOAL := train

train: $(VENV)/.train
	@echo "== training K2-MAPPO on smax/2s3z for $(STEPS) environment steps"
	$(RUN)/kpg-fast train k-mappo smax/2s3z --levels 2 --total-steps $(STEPS)

test: $(VENV)/.test
	$(RUN)/python -m pytest $(PYTEST)

SMAC_STEPS ?= 1000000
SMAC_SEEDS ?= 0 1 2 3 4
SMAC_CLIENT ?= native
SMAC_RUNS ?= runs/smac-2s3z
smac: $(VENV)/.train
	$(RUN)/python -m pip install --disable-pip-version-check -q -e ".[plot,smac]"
	for levels in 1 2; do \
	$(RUN)/kpg-fast train k-mappo smac/2s3z --client $(SMAC_CLIENT) --levels $$levels --total-steps $(SMAC_STEPS) \
	--seeds $(SMAC_SEEDS) --run-dir $(SMAC_RUNS)/K$$levels || exit; done
	$(RUN)/kpg-fast plot $(SMAC_RUNS) --out $(SMAC_RUNS)/K1-K2

lint: $(VENV)/.test
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

bench: $(VENV)/.test
	$(RUN)/python bench/run.py $(BENCH)

# Short cases against their references in the same run, which a sound build never falls this far behind. One thread: two
# that wait for each other measure what else the machine does.
quick-bench: $(VENV)/.test
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(RUN)/python bench/run.py --quick --no-tests --check 2.0 --json $(VENV)/quick.jsonl

# torch comes first and alone: asked for by another package, the same version may bring gigabytes of CUDA.
$(VENV)/.torch:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or 3.12 is needed; found neither (name one with PYTHON=...)"; exit 1; }
	@echo "== 1/3 virtual environment in $(VENV) with $(PYTHON)"
	"$(PYTHON)" -m venv "$(VENV)"
	@echo "== 2/3 torch"
	$(RUN)/python -m pip install --disable-pip-version-check torch==2.13.0
	@touch $@

$(VENV)/.train: $(VENV)/.torch pyproject.toml setup.py $(wildcard csrc/*)
	@echo "== 3/3 kpg_fast: dependencies, compiler"
	$(RUN)/python -m pip install --disable-pip-version-check -e ".[plot]"
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml setup.py $(wildcard csrc/*)
	@echo "== 3/3 kpg_fast: dependencies of the tests, compiler"
	$(RUN)/python -m pip install --disable-pip-version-check -e ".[test]"
	@touch $@ $(VENV)/.train

clean:
	rm -rf "$(VENV)" build kpg_fast.egg-info kpg_fast/_C.*.so
