# Ostler's targets, for people and for CI alike; `make help` lists them.
#
#   PYTHON=…  the interpreter for .venv
#   ROOT=…    the directory of the daemon of `make run` and `make demo`
#   VERSIONS=…  which Pythons (make test-pythons), such as "3.12 3.14"
#   ARGS=…    more options for pytest (make test), ostler (make run) or the benchmarks (make bench, make bench-peers)
#           and the fuzzer (make fuzz ARGS="--minutes 10 --seed 5") or the attacks (make attack ARGS="--quick"),
#           crashes (make crash ARGS="--kills 1000 --seed 7") and the soak (make soak ARGS="--minutes 10")

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

ROOT := .ostler
VERSIONS := 3.12 3.13 3.14
BIN := .venv/bin
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
# An environment contains its own path: in a tree that was moved it has to be created again.
STAMP := .venv/.made-$(shell pwd -P | cksum | cut -d ' ' -f 1)

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

$(STAMP): $(PROJECTS) conf/dev/venv
	@sh conf/dev/venv $(PYTHON)
	@touch $@

.PHONY: venv
venv: $(STAMP) ## Create the virtual environment .venv (the other targets do it as well)

.PHONY: run
run: $(STAMP) $(ROOT)/etc/ostler.toml ## Run a daemon below ./.ostler until Ctrl-C
	@echo 'When it is ready, type in another terminal:'
	@echo '  make demo'
	@echo '  $(BIN)/ostler --root $(ROOT) volume create data --size 10GiB'
	@echo
	@exec sh conf/dev/run $(ROOT) $(ARGS)

$(ROOT)/etc/ostler.toml:
	@mkdir -p $(ROOT)/etc
	@sed "s|@ROOT@|$$(cd $(ROOT) && pwd -P)|" conf/dev/ostler.toml > $@

.PHONY: demo
demo: $(STAMP) ## Show a tour on the daemon of `make run`
	@exec sh conf/dev/demo $(ROOT)

.PHONY: test
test: lint ## Check everything: lint, types, layers, tests
	@exec $(BIN)/pytest $(ARGS)

.PHONY: test-trixie
test-trixie: $(STAMP) ## Run the tests of systemd on a Debian 13 root as well (root, network, a minute)
	@OSTLER_TEST_TRIXIE=1 exec $(BIN)/pytest tests/systemd $(ARGS)

.PHONY: test-pythons
test-pythons: $(STAMP) ## Run the tests with the Pythons of VERSIONS, from the releases that carry them (root, network)
	@exec sh conf/dev/pythons "$(VERSIONS)" $(ARGS)

.PHONY: test-lowest
test-lowest: $(STAMP) ## Run the tests with the lowest versions of the dependencies
	@exec sh conf/dev/lowest $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, types and imports between packages
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(STAMP) ## Format the sources
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: docs
docs: $(STAMP) ## Build the site of the documentation in build/docs (offline, with search)
	@$(BIN)/python conf/docs/build.py html build/docs
	@echo 'Open build/docs/index.html'

.PHONY: man
man: $(STAMP) ## Build the manual pages ostler(1), ostler.toml(5) and ostler-plugins(7) in build/man
	@$(BIN)/python conf/docs/build.py man build/man

.PHONY: bench
bench: $(STAMP) ## Measure against the budgets, as ratios to a plain echo in the same run
	@exec $(BIN)/python tests/bench/run_bench.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP) ## Compare with message brokers, gRPC, Pyro5, HTTP and D-Bus
	@exec $(BIN)/python tests/bench/peers/run_peers.py $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Send malformed messages for ten minutes; stops at the first failure
	@exec $(BIN)/python tests/fuzz/run_fuzz.py $(ARGS)

.PHONY: fuzz-api
fuzz-api: $(STAMP) ## Have schemathesis make requests of the OpenAPI document, OSTLER_FUZZ_API_EXAMPLES for each path
	@OSTLER_FUZZ_API_EXAMPLES=$${OSTLER_FUZZ_API_EXAMPLES:-20} \
		exec $(BIN)/pytest plugins/ostler-http/tests/api/test_schemathesis.py $(ARGS)

.PHONY: test-openapi-client
test-openapi-client: $(STAMP) ## Generate a TypeScript client of the OpenAPI document and use it (npm, network)
	@exec $(BIN)/pytest plugins/ostler-http/tests/api/generated_client.py $(ARGS)

.PHONY: model
model: $(STAMP) ## Compare failing hosts and schedulers with a model, for ten minutes or OSTLER_MODEL_EXAMPLES
	@OSTLER_MODEL_EXAMPLES=$${OSTLER_MODEL_EXAMPLES:-150} OSTLER_MODEL_STEPS=$${OSTLER_MODEL_STEPS:-30} \
		exec $(BIN)/pytest tests/model $(ARGS)

.PHONY: growth
growth: $(STAMP) ## Make a million calls and check that the daemon does not grow (a minute)
	@exec $(BIN)/python tests/fuzz/growth.py $(ARGS)

.PHONY: crash
crash: $(STAMP) ## Kill daemons 1000 times under a mixed load and check what they have promised (ten minutes)
	@exec $(BIN)/python tests/faults/crash_run.py $(ARGS)

.PHONY: soak
soak: $(STAMP) ## Load a daemon for ten minutes with kills, stops, reloads and a full disk, and check it
	@exec $(BIN)/python tests/faults/soak_run.py $(ARGS)

.PHONY: reloads
reloads: $(STAMP) ## Reload a daemon a thousand times under load of eight clients (three minutes)
	@OSTLER_RELOADS=1000 exec $(BIN)/pytest -q tests/functional/test_reload.py -k many

.PHONY: attack
attack: $(STAMP) ## Attack a daemon as other users and check that regular ones are served (root, ten minutes)
	@exec $(BIN)/python tests/attack/run_attacks.py $(ARGS)

.PHONY: clean
clean: ## Remove generated files, but not the volumes below ./.ostler
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find daemon plugins tests -name __pycache__ -prune -exec rm -rf {} +
