# The two commands of the README are `make demo` and `make test`; both do all the set-up.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
IMAGE ?=
ROOMS := protocol storage actors bin orlop/__init__.py tests benchmarks

# The tests start hundreds of processes of ours; what Python compiled for one is not compiled again for the next.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types layers wheel pytest tools bench bench-quick soak docs clean

demo: $(VENV)/.installed
	@$(BIN)/python -m tests.demo $(IMAGE)

test: tools lint types layers pytest wheel

pytest: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 4

lint: $(VENV)/.test
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/ruff format --check $(ROOMS)

types: $(VENV)/.test
	$(BIN)/mypy -p orlop

layers: $(VENV)/.test
	$(BIN)/lint-imports --no-cache

# An sdist, a wheel from it, and the program from that wheel in an empty environment.
wheel: $(VENV)/.test
	rm -rf dist build/empty
	$(BIN)/python -m build --installer pip . >/dev/null
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install -q dist/*.whl
	cd build && empty/bin/orlop version && empty/bin/orlopd --version && empty/bin/orlop-load --version && empty/bin/orlop-load scenarios >/dev/null

# Foreign programs that the tests use; without them those tests are skipped, and say so.
tools:
	@if ! command -v docker-registry >/dev/null || ! command -v skopeo >/dev/null || ! command -v umoci >/dev/null || ! command -v mkfs.btrfs >/dev/null; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker-registry skopeo umoci attr btrfs-progs >/dev/null; \
	  else echo "docker-registry, skopeo, umoci or mkfs.btrfs is missing: the tests that need them will be skipped"; fi; fi

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.test
	$(BIN)/python -m benchmarks --quick

# Longer than a change can wait for: more kills, more histories, more broken transfers.
soak: $(VENV)/.test
	ORLOP_SOAK=1 ORLOP_SOAK_S=600 ORLOP_HISTORIES=100000 ORLOP_TRANSFERS=1000 $(BIN)/python -m pytest -q -p no:randomly tests/crash tests/storage tests/conformance tests/collection tests/integration/test_faulty_transfers.py tests/load

# What is made from the code: the page of commands.
docs: $(VENV)/.installed
	$(BIN)/python -m orlop.bin.manual > docs/cli.md

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -U "pip>=25.1"
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install -q --group test --group lint
	touch $@

clean:
	rm -rf $(VENV) dist build .demo
