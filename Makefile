# The commands of this project; `make help` lists them. Each prepares what it needs.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin

# The virtual environment, its packages by hash, and the Spark and Kafka jars by SHA-256.
.venv/ready: requirements.lock pyproject.toml antenna_assets/stack/jars.lock.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m antenna_assets.stack.jars
	@touch $@

# Spark's classes, for starts that take 3 s less. The demonstration does not wait the half minute that it takes.
.venv/class-archive: .venv/ready
	$(BIN)/python -m antenna_assets.streaming.spark.build_class_archive
	@touch $@

# The peers of the benchmarks, in environments of their own.
.venv-%/ready: benchmarks/peers/%.lock
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# What Spark Connect needs, beside the environment: numpy within it would cost every start of pyarrow 70 ms.
.venv-connect/ready: antenna_assets_tests/connect.lock .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade --target .venv-connect -r $<
	@touch $@

# Superset pins packages that are older than ours: its own environment.
.venv-superset/ready: docker/superset/requirements.lock
	$(PYTHON) -m venv .venv-superset
	.venv-superset/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# What the tests in a browser need; 50 MB that nothing else does.
.venv-ui/ready: antenna_assets_tests/ui.lock .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade --target .venv-ui -r $<
	@touch $@

.PHONY: help setup demo dashboards test durations test-ui chromium unit prove bench bench-short lint format secrets up down lock
help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/class-archive ## prepare the environment (the other commands do it by themselves)

demo: .venv/ready ## from nothing to a checked result
	$(BIN)/antenna demo

# Two workers, each with services of its own; then what needs the machine for itself.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder -m 'not serial and not benchmark'
test: .venv/class-archive .venv-connect/ready ## all tests but those of `bench-short` and `test-ui`
	$(BIN)/python -m pytest $(TWO_WORKERS)
	$(BIN)/python -m pytest -m serial

durations: .venv/class-archive .venv-connect/ready ## run the tests and keep how long each file takes
	reports="$$(mktemp -d)"; $(BIN)/python -m pytest $(TWO_WORKERS) --junit-xml="$$reports/two.xml" && \
		$(BIN)/python -m pytest -m serial --junit-xml="$$reports/serial.xml" && \
		$(BIN)/python -m antenna_assets_tests.durations "$$reports"/*.xml

bench-short: .venv/class-archive .venv-bench/ready ## the benchmarks in their short form: that they run and agree
	$(BIN)/python -m pytest -m benchmark

dashboards: .venv/ready .venv-superset/ready ## Superset with the dashboards on 127.0.0.1, over the embedded PostgreSQL
	$(BIN)/antenna dashboards

test-ui: .venv/class-archive .venv-ui/ready .venv-superset/ready chromium ## Dagster's and Superset's UI in a real browser; PICTURES=docs/pictures keeps screenshots
	PYTHONPATH=.venv-ui $(BIN)/python -m pytest --ui $(if $(PICTURES),--pictures $(PICTURES)) antenna_assets_tests/ui

# Without help: `make test-ui` asks for it.
chromium:
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends chromium; \
		else echo "expected chromium in the PATH and found none; install it: apt-get install chromium" >&2; exit 1; fi

unit: .venv/ready ## the tests that need no service
	$(BIN)/python -m pytest -m 'not services'

prove: .venv/class-archive ## the long form of the proofs, into docs/proofs.md; ROWS=1,14 for some of them
	$(BIN)/python -m antenna_assets_tests.prove $(if $(ROWS),--rows $(ROWS))

bench: .venv/class-archive .venv-bench/ready .venv-flink/ready ## this system beside its peers, into docs/benchmarks.md; CASES=stream,hour for some
	$(BIN)/python -m benchmarks $(if $(CASES),--cases $(CASES))

lint: .venv/ready ## format, lint and type checks, and the order of the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

secrets: ## secrets and certificates of the containers, into docker/secrets; PROFILE=demo or secure
	$(PYTHON) docker/make_secrets.py $(PROFILE)

up: .venv/class-archive ## start the embedded PostgreSQL and Kafka
	$(BIN)/antenna up

down: .venv/ready ## stop them
	$(BIN)/antenna down

lock: .venv/ready ## resolve the dependencies again into the lock files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra s3 --extra gs --generate-hashes --no-strip-extras --no-emit-index-url \
		--no-annotate --custom-compile-command 'make lock' pyproject.toml --output-file requirements.lock
	for peers in bench flink; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --custom-compile-command 'make lock' benchmarks/peers/$$peers.in --output-file benchmarks/peers/$$peers.lock; done
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --custom-compile-command 'make lock' docker/superset/requirements.in --output-file docker/superset/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra s3 --extra gs --constraint requirements.lock \
		--no-annotate --custom-compile-command 'make lock' pyproject.toml docker/antenna/requirements.in --output-file docker/antenna/requirements.lock
	for packages in connect ui; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --constraint requirements.lock \
		--no-annotate --custom-compile-command 'make lock' antenna_assets_tests/$$packages.in --output-file antenna_assets_tests/$$packages.lock; done
	$(BIN)/python -m antenna_assets.stack.jars --lock
