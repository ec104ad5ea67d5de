# The few commands of this repository. Each sets up what it needs, once (.ci/setup); everything lives in .venv and .demo.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# What `make demo` runs; and how many test processes `make test` uses.
DEMO ?= $(BIN)/python deploy/demo.py --folder .demo
WORKERS ?= 2
# `make test TESTS=tests/formats` runs a part; ARGS goes to pytest.
TESTS ?= tests
ARGS ?=
# How long `make fuzz` spends on each parser.
SECONDS ?= 60
export PYTHON

.PHONY: help
help: ## show these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

.PHONY: demo
demo: ## set up, then run the whole story on a real model: publish, ask, approve, sample, pull, verify, revoke
	@.ci/setup demo
	@$(DEMO)

.PHONY: test
test: ## set up, with the servers the suite needs, then run every test
	@.ci/setup test
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS) $(TESTS)

.PHONY: lint
lint: packages ## style, types, who may import whom, proto rules, generated code
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check --output-format concise .
	$(BIN)/mypy -p model_organisms -p model_organisms_registry
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --lint --check

.PHONY: fuzz
fuzz: ## give each parser bytes that find their way by coverage, SECONDS=60 each; ARGS="note receipt" takes some
	@.ci/setup fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

.PHONY: faults
faults: ## fail each system call of the write paths in turn, restart, and look; writes docs/faults.md (takes long)
	@.ci/setup test
	@$(BIN)/python -m tests.faults $(ARGS)

.PHONY: chaos
chaos: ## 64 sessions while cells and the registry are killed, SECONDS=600; then ledger, budgets and transcripts must agree
	@.ci/setup test
	@$(BIN)/python -m tests.chaos --seconds $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),600) $(ARGS)

.PHONY: soak
soak: ## 10,000 samples through sessions; memory of registry and cells must stay flat
	@.ci/setup test
	@$(BIN)/python -m tests.soak $(ARGS)

.PHONY: bench
bench: packages ## ratios against peers, both sides in one run; writes build/bench.json
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: engine
engine: ## 1 to 128 organisms, ranks 1 to 64, beside bare base, PEFT and vLLM in one run (two hours; ARGS="--counts 8" takes a part)
	@.ci/setup vllm
	@$(BIN)/python -m tests.bench --only M1 --all --vllm .tools/vllm/bin/python $(ARGS)

.PHONY: science
science: packages ## every suite on the toy organisms; writes docs/science (half an hour; ARGS=--quick to see whether it runs)
	@$(BIN)/python deploy/science $(ARGS)

.PHONY: proto
proto: packages ## generate the protobuf code again
	$(BIN)/python proto/generate.py

.PHONY: packages
packages: ## only the virtual environment
	@.ci/setup packages

.PHONY: clean
clean: ## remove what these commands made, the virtual environment included
	rm -rf .venv .demo .tools build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .setup.lock
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
