# Every target sets up what it needs: a virtual environment in .venv, made once.
PYTHON ?= python3
BIN := .venv/bin
# Several processes with one thread each: threads that share cores wait for each other. They compile the sources once.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-all lint check docs fix clean

demo: .venv/ready
	$(BIN)/fasterrcnn demo

test: .venv/ready
	$(PYTEST)

# What takes long and rarely breaks: compiled networks, more random cases, whole runs.
test-slow: .venv/ready
	$(PYTEST) -m slow

test-all: test test-slow

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint test

# The site, in site/. Its search needs a server: python -m http.server -d site
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fix: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# torch is installed first and by itself, so that an interrupted set-up continues where it was.
.venv/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q torch torchvision
	$(BIN)/pip install -q -e ".[demo,test,dev]"
	touch $@

.venv/docs-ready: .venv/ready
	$(BIN)/pip install -q -e ".[docs]"
	touch $@
