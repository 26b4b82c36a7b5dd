# Every task of the project. Each target creates what it needs; `make help` lists them.
# Needs: make, Python 3.11 or 3.12 with venv and pip. Tests need the programs that `make system` names.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' && echo $$p && break; done)
PIP := -m pip --disable-pip-version-check
UV := .cache/uv/bin/uv
ROWS ?=
DEMO_FLAGS ?= $(if $(ROWS),--rows $(ROWS))
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
# Tests wait for processes, brokers and clocks as long as they compute: three at a time, also on two cores.
TEST_WORKERS ?= 3
PYTEST := -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal
# With AGAIN=1, as in CI, what failed runs once more, alone: a fault fails again; a race passes, and is named.
AGAIN ?=
RACY := && echo "== RACY: what failed above and passed alone is a defect to mend"
define tests
$(1) $(PYTEST) $(2) $(PYTEST_FLAGS) || { code=$$?; [ -n "$(AGAIN)" ] && [ $$code = 1 ] || exit $$code; \
		echo "== once more, alone"; $(1) -m pytest --last-failed --last-failed-no-failures none $(2) $(PYTEST_FLAGS) $(RACY); }
endef
# A machine that forbids bytecode files has each of the processes that the tests start compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
# Threads that spin while they wait for each other make small predictions many times slower on a busy machine.
export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## List the tasks.
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.ready ## The main job on real data, on this machine alone (ROWS=n for more; Ctrl-C ends it).
	.venv/bin/govern demo $(DEMO_FLAGS)

.PHONY: test
test: system lint test-numpy2 test-alibi test-peers ## Everything CI runs: lint, types, imports, and all tests in every environment.

.PHONY: test-numpy2
test-numpy2: .venv/.ready tools ## All tests that need no alibi, on numpy 2.
	$(call tests,.venv/bin/python,-m "not alibi and not peers and not tensorflow")

# These import nothing whose version differs beside alibi, not even indirectly (a contract in .importlinter says so; the
# charts have no Python in them), and start no detector that test-alibi does not run anyway: a second run would show the
# same again. Nor does it show more of commands that run as processes, and are killed: those tests are marked e2e.
ONCE := mirror bus pipeline telemetry web audit dashboards charts services

.PHONY: test-alibi
test-alibi: .venv-alibi/.ready ## On numpy 1.26 with alibi and alibi-detect as oracles: all that can tell one numpy from another.
	# thinc, which alibi brings, seeds numpy with pytest-randomly's seed plus a CRC and fails past 2^32: a small seed.
	$(call tests,.venv-alibi/bin/python,-m "not e2e and not browser and not prometheus and not kafka and not postgres and not peers and not tensorflow" $(ONCE:%=--ignore=tests/%) --randomly-seed=$$RANDOM)

.PHONY: test-peers
test-peers: .venv/.ready .venv-peers/.ready .venv-peers-kserve/.ready ## Capture against MLServer and the clients of others, each as it is.
	$(call tests,.venv/bin/python,-m peers)

.PHONY: test-tensorflow
test-tensorflow: .venv/.ready .venv-tensorflow/.ready ## Detectors of alibi-detect on TensorFlow or Prophet: saved there and judged with here; oracles of mmd and lsdd.
	$(call tests,GOVERN_ALIBI_PYTHON=.venv-tensorflow/bin/python .venv/bin/python,-m tensorflow tests/detectors/test_alibi_tensorflow.py tests/detectors/test_alibi_kernels.py --numprocesses 0)

.PHONY: e2e
e2e: system .venv/.ready ## Only the whole-system runs.
	.venv/bin/python -m pytest -m e2e $(PYTEST_FLAGS)

.PHONY: storm
storm: system .venv/.ready ## Kill one of three workers on Kafka, a hundred times (KILLS=n): every verdict once.
	GOVERN_STORM_KILLS=$(or $(KILLS),100) .venv/bin/python -m pytest tests/runtime/test_storm.py -m kafka --capture=no $(PYTEST_FLAGS)

.PHONY: lint
lint: .venv/.ready ## Style, types, import contracts.
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.PHONY: format
format: .venv/.ready ## Format the code and mend what ruff can.
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: bench
bench: system .venv/.ready .venv-alibi/.ready .venv-peers-alibi/.ready .venv-peers-drift/.ready ## The benchmarks; each prints a table with ratios.
	for file in tests/bench/*.py; do echo "== $$file"; .venv-alibi/bin/python -m tests.bench.$$(basename $$file .py); done

.PHONY: bench-capture
bench-capture: system .venv/.ready ## What capture costs, as docs/capture/performance.md has it (BENCH_FLAGS="--seconds 1").
	.venv/bin/python -m tests.bench.capture --markdown $(BENCH_FLAGS)
	.venv/bin/python -m tests.bench.capture_hour --markdown
	.venv/bin/python -m tests.bench.capture_grpc --markdown

.PHONY: bench-runtime
bench-runtime: system .venv/.ready .venv-peers-alibi/.ready ## How fast pipelines judge, as docs/runtime-performance.md has it.
	.venv/bin/python -m tests.bench.runtime --markdown $(BENCH_FLAGS)

.PHONY: system
system: ## Name the system packages that the tests need and this machine lacks.
	@$(if $(PYTHON),$(PYTHON),python3) tests/services/system.py

.PHONY: tools
tools: .venv/.ready ## Fetch and build the services that the tests start.
	.venv/bin/python -m tests.services.tools

.PHONY: proto
proto: .venv/.ready ## Generate the *_pb2.py modules from the .proto files.
	.venv/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. govern/record.proto govern/codecs/open_inference.proto

.PHONY: schema
schema: .venv/.ready ## Generate the JSON schema of capture's configuration file.
	.venv/bin/python -m govern.cli.main mirror schema > docs/capture/mirror.schema.json

.PHONY: dashboards
dashboards: .venv/.ready ## Generate the Grafana dashboards and Prometheus rules.
	.venv/bin/python -m dashboards.build

EXTRAS := --extra mirror --extra explain --extra audit --extra dev
.PHONY: lock
lock: $(UV) ## Pin the two environments again from pyproject.toml.
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 pyproject.toml $(EXTRAS) -o locks/numpy2.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 pyproject.toml $(EXTRAS) --extra alibi -o locks/alibi.txt

.PHONY: lock-peers
lock-peers: $(UV) ## Pin the environments of other people's software again, from locks/*.in.
	UV_CUSTOM_COMPILE_COMMAND="make lock-peers" $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 locks/tensorflow.in --override locks/tensorflow.override -o locks/tensorflow.txt
	for name in peers peers-kserve peers-alibi peers-drift; do \
		UV_CUSTOM_COMPILE_COMMAND="make lock-peers" $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 locks/$$name.in -o locks/$$name.txt; done

.PHONY: clean
clean: ## Remove environments and caches.
	rm -rf .venv .venv-alibi .venv-peers .venv-peers-kserve .venv-peers-alibi .venv-peers-drift .venv-tensorflow .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.ready: locks/numpy2.txt pyproject.toml | $(UV)
	$(call environment,.venv,locks/numpy2.txt)

.venv-alibi/.ready: locks/alibi.txt pyproject.toml | $(UV)
	$(call environment,.venv-alibi,locks/alibi.txt)

.venv-peers/.ready: locks/peers.txt | $(UV)
	$(call environment,.venv-peers,locks/peers.txt)

.venv-peers-kserve/.ready: locks/peers-kserve.txt | $(UV)
	$(call environment,.venv-peers-kserve,locks/peers-kserve.txt)

# Nothing of govern runs in it, whose numpy is older than govern's.
.venv-peers-alibi/.ready: locks/peers-alibi.txt | $(UV)
	$(call environment,.venv-peers-alibi,locks/peers-alibi.txt)

# Nothing of govern runs in it: windows are handed to it in files.
.venv-peers-drift/.ready: locks/peers-drift.txt | $(UV)
	$(call environment,.venv-peers-drift,locks/peers-drift.txt)

# Nothing of govern runs in it: detectors are reached through a process of its own. The lock leaves `tensorflow` out,
# which tf-keras asks for and tensorflow-cpu replaces: it is installed as it stands.
.venv-tensorflow/.ready: locks/tensorflow.txt | $(UV)
	@[ -x .venv-tensorflow/bin/python ] || $(UV) venv --quiet --seed --no-python-downloads --python $(PYTHON) .venv-tensorflow || $(PYTHON) -m venv .venv-tensorflow
	@$(UV) pip install --quiet --python .venv-tensorflow/bin/python --no-deps -r locks/tensorflow.txt || .venv-tensorflow/bin/python $(PIP) install --quiet --no-deps -r locks/tensorflow.txt
	@touch $@

# uv installs all environments in less time than pip takes for one. It reads no pip.conf: where it fails, pip installs.
$(UV):
	@if [ -z "$(PYTHON)" ]; then \
		echo "govern needs Python 3.11 or 3.12 (Debian: apt-get install python3 python3-venv python3-pip)" >&2; exit 1; fi
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "the module venv is missing (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python $(PIP) install --quiet uv==0.13.9 || echo "no uv: pip installs"

define environment
@echo "== $(1): $$($(PYTHON) --version), $$(grep -c == $(2)) packages"
@[ -x $(1)/bin/python ] || $(UV) venv --quiet --seed --no-python-downloads --python $(PYTHON) $(1) || $(PYTHON) -m venv $(1)
@$(UV) pip install --python $(1)/bin/python -r $(2) 2>&1 | grep --line-buffered -v '^ [+~-]' || $(1)/bin/python $(PIP) install -r $(2)
@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --editable . || $(1)/bin/python $(PIP) install --quiet --no-deps --editable .
@touch $@
endef
