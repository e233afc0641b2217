# Ostler's targets, for people and for CI alike; `make help` lists them.
#
#   PYTHON=…  the interpreter for .venv
#   ROOT=…    the folder of the daemon of `make run` and `make demo`
#   ARGS=…    more options for pytest (make test), ostler (make run) or the benchmarks (make bench, make bench-peers)
#           and the fuzzer (make fuzz ARGS="--minutes 10 --seed 5") or the attacks (make attack ARGS="--quick")

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

ROOT := .ostler
BIN := .venv/bin
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
# An environment knows where it lies: in a tree that was moved it is made anew.
STAMP := .venv/.made-$(shell pwd -P | cksum | cut -d ' ' -f 1)

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

$(STAMP): $(PROJECTS) conf/dev/venv
	@sh conf/dev/venv $(PYTHON)
	@touch $@

.PHONY: venv
venv: $(STAMP) ## Make the virtual environment .venv (the other targets do it as well)

.PHONY: run
run: $(STAMP) $(ROOT)/etc/ostler.toml ## Run a daemon below ./.ostler until Ctrl-C
	@echo 'When it is ready, type in another terminal:'
	@echo '  make demo'
	@echo '  $(BIN)/ostler --root $(ROOT) volume create data --size 10GiB'
	@echo
	@exec $(BIN)/ostler --root $(ROOT) run $(ARGS)

$(ROOT)/etc/ostler.toml:
	@mkdir -p $(ROOT)/etc
	@sed "s|@ROOT@|$$(cd $(ROOT) && pwd -P)|" conf/dev/ostler.toml > $@

.PHONY: demo
demo: $(STAMP) ## Take a tour on the daemon of `make run`
	@exec sh conf/dev/demo $(ROOT)

.PHONY: test
test: lint ## Check everything: lint, types, floors, tests
	@exec $(BIN)/pytest $(ARGS)

.PHONY: test-trixie
test-trixie: $(STAMP) ## Run the tests of systemd on a Debian 13 root as well (root, network, a minute)
	@OSTLER_TEST_TRIXIE=1 exec $(BIN)/pytest tests/systemd $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, types and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## Bring the sources into the shape that lint asks for
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: bench
bench: $(STAMP) ## Measure against the budgets, as ratios to a bare echo in the same run
	@exec $(BIN)/python tests/bench/run.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP) ## Measure beside what users have today: message brokers, gRPC, Pyro5, HTTP, D-Bus
	@exec $(BIN)/python tests/bench/peers/run.py $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Send what no honest peer would, ten minutes long; stops where something gives way
	@exec $(BIN)/python tests/fuzz/run.py $(ARGS)

.PHONY: model
model: $(STAMP) ## Compare hosts and schedulers in trouble with a model, ten minutes long or as OSTLER_MODEL_EXAMPLES says
	@OSTLER_MODEL_EXAMPLES=$${OSTLER_MODEL_EXAMPLES:-250} OSTLER_MODEL_STEPS=$${OSTLER_MODEL_STEPS:-30} \
		exec $(BIN)/pytest tests/model $(ARGS)

.PHONY: soak
soak: $(STAMP) ## Make a million calls through the daemon and see that it does not grow (a minute)
	@exec $(BIN)/python tests/fuzz/soak.py $(ARGS)

.PHONY: attack
attack: $(STAMP) ## Attack a daemon as other users and see that honest ones are served (root, ten minutes)
	@exec $(BIN)/python tests/attack/attack_run.py $(ARGS)

.PHONY: clean
clean: ## Remove what was made, but not the volumes below ./.ostler
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find daemon plugins tests -name __pycache__ -prune -exec rm -rf {} +
