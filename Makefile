# Everything runs in .venv, which the first target that needs it makes. Try `make help`.

# The first of these that is Python 3.11 or newer; `make PYTHON=/path/to/python test` overrides.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)

BIN := .venv/bin
# What make demo writes and how large it is.
DEMO ?= --regularizers none,steps,error,stiffness --seeds 3 --out runs/demo
# How many configurations make compare draws, and which.
N ?= 300
SEED ?= 0
# How long make papers goes on.
MINUTES ?= 10

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow compare mutants bench docs papers notebooks lint clean

help: ## say what the targets do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target does; do \
		printf '  make %-10s %s\n' "$$target" "$$does"; done

demo: .venv/with-experiments ## train a neural ODE on digits, plain and regularised, and compare
	$(BIN)/ndekit compare digits $(DEMO)

test: .venv/with-tests ## run the tests but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/with-tests ## run the slow tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

compare: .venv/with-tests ## solve N random configurations with diffrax and with ndekit
	PYTHONPATH=tests $(BIN)/python -m compare -n $(N) --seed $(SEED)

mutants: .venv/with-tests ## put small faults into a copy of the code, which tests must find
	PYTHONPATH=tests $(BIN)/python -m mutants

bench: .venv/with-tests ## time the engine against diffrax
	$(BIN)/python -m pytest tests/bench --benchmark-only -m '' -s

papers: .venv/with-experiments ## train what the published tables lack, for MINUTES=10; go on next time
	$(BIN)/ndekit papers --minutes $(MINUTES)

docs: .venv/with-docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file .mkdocs.yml

notebooks: .venv/with-tests ## run the notebooks in full and keep what they show
	$(BIN)/python notebooks/run_all.py

lint: .venv/with-lint .venv/with-experiments ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean: ## remove .venv, caches, the built documentation and make demo's results
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .benchmarks site runs/demo
	find ndekit tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra: it is installed again only when pyproject.toml changes.
.venv/with-%: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/pip:
	@test -n '$(PYTHON)' || { echo 'ndekit needs Python 3.11 or newer; name one with `make PYTHON=/path/to/python`.' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'ndekit needs Python 3.11 or newer, and $(PYTHON) is older or missing.' >&2; exit 1; }
	'$(PYTHON)' -m venv .venv
