# The commands of this project; `make help` lists them. Each prepares what it needs.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin

# By hash, all that a lock names, and compiled as pip does it: where Python may write no bytecode, every start
# would compile again. pyspark is published as sources only: its wheel is stored, for compressing it takes 15 s.
INSTALL = requirements/uv pip install --quiet --no-deps --require-hashes --compile-bytecode \
	--no-build-isolation-package pyspark --config-settings-package pyspark:--build-option=--compression=stored

# The virtual environment, and in it what installs and builds the rest.
.venv/installer: requirements/installer.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# What the commands need: packages by hash, and the Spark and Kafka jars by SHA-256.
.venv/ready: requirements/run.lock pyproject.toml antenna_assets/stack/jars.lock.toml | .venv/installer
	$(INSTALL) --python $(BIN)/python --requirement $<
	requirements/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m antenna_assets.stack.jars
	@touch $@

# What tests and linters need beside it.
.venv/dev: requirements/dev.lock .venv/ready
	$(INSTALL) --python $(BIN)/python --requirement $<
	@touch $@

# Kafka's and Spark's classes, for starts that take half the CPU, and 3 s less. The demonstration does not wait the
# half minute that it takes.
.venv/class-archive: .venv/ready
	$(BIN)/python -m antenna_assets.stack.kafka_class_archive
	$(BIN)/python -m antenna_assets.streaming.spark.build_class_archive
	@touch $@

# The peers of the benchmarks, in environments of their own.
.venv-%/ready: benchmarks/peers/%.lock | .venv/installer
	requirements/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(INSTALL) --python $(@D)/bin/python --requirement $<
	@touch $@

# Superset pins packages that are older than ours: its own environment. Without make, `antenna dashboards` makes
# it with pip; it compares the lock with this copy.
SUPERSET := .venv/share/antenna/superset/ready
$(SUPERSET): docker/superset/requirements.lock | .venv/installer
	requirements/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(INSTALL) --python $(@D)/bin/python --requirement $<
	@cp $< $@

# What Spark Connect needs, beside the environment: numpy within it would cost every start of pyarrow 70 ms.
# And what the tests in a browser need: 50 MB that nothing else does.
.venv-connect/ready .venv-ui/ready: .venv-%/ready: antenna_assets_tests/%.lock | .venv/installer
	rm -rf $(@D)
	$(INSTALL) --python $(BIN)/python --target $(@D) --requirement $<
	@touch $@

.PHONY: help setup demo dashboards test durations test-ui chromium unit prove bench bench-short lint format secrets up down lock
help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/dev .venv/class-archive ## prepare the environment (the other commands do it by themselves)

demo: .venv/ready ## from nothing to a checked result; ENGINE=spark for the same line on Spark
	$(if $(ENGINE),ANTENNA_STREAM_ENGINE=$(ENGINE) ANTENNA_ENGINE=$(ENGINE)) $(BIN)/antenna demo

# Three workers, each with services of its own, as they wait a third of the time; then what needs the machine for
# itself.
IN_PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder -m 'not serial and not benchmark'
SERIAL = $$(grep -rl mark.serial antenna_assets_tests --include=*.py)
test: .venv/dev .venv/class-archive .venv-connect/ready $(SUPERSET) ## all tests but those of `bench-short` and `test-ui`
	$(BIN)/python -m pytest $(IN_PARALLEL)
	$(BIN)/python -m pytest -m serial $(SERIAL)

durations: .venv/dev .venv/class-archive .venv-connect/ready $(SUPERSET) ## run the tests and keep how long each file takes
	reports="$$(mktemp -d)"; $(BIN)/python -m pytest $(IN_PARALLEL) --junit-xml="$$reports/two.xml" && \
		$(BIN)/python -m pytest -m serial $(SERIAL) --junit-xml="$$reports/serial.xml" && \
		$(BIN)/python -m antenna_assets_tests.durations "$$reports"/*.xml

bench-short: .venv/dev .venv/class-archive .venv-bench/ready ## the benchmarks in their short form: that they run and agree
	$(BIN)/python -m pytest -m benchmark antenna_assets_tests/test_benchmarks.py

dashboards: .venv/ready $(SUPERSET) ## Superset with the dashboards on 127.0.0.1, over the embedded PostgreSQL
	$(BIN)/antenna dashboards

test-ui: .venv/dev .venv/class-archive .venv-ui/ready $(SUPERSET) chromium ## Dagster's and Superset's UI in a real browser; PICTURES=docs/pictures keeps screenshots
	PYTHONPATH=.venv-ui $(BIN)/python -m pytest --ui $(if $(PICTURES),--pictures $(PICTURES)) antenna_assets_tests/ui

# Without help: `make test-ui` asks for it.
chromium:
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ]; then apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends chromium; \
		else echo "expected chromium in the PATH and found none; install it: apt-get install chromium" >&2; exit 1; fi

unit: .venv/dev ## the tests that need no service
	$(BIN)/python -m pytest -m 'not services'

prove: .venv/dev .venv/class-archive ## the long form of the proofs, into docs/proofs.md; ROWS=1,14 for some of them
	$(BIN)/python -m antenna_assets_tests.prove $(if $(ROWS),--rows $(ROWS))

bench: .venv/dev .venv/class-archive .venv-bench/ready .venv-flink/ready ## this system beside its peers, into docs/benchmarks.md; CASES=stream,hour for some
	$(BIN)/python -m benchmarks $(if $(CASES),--cases $(CASES))

lint: .venv/dev ## format, lint and type checks, and the order of the rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

secrets: ## secrets and certificates of the containers, into docker/secrets; PROFILE=demo or secure
	$(PYTHON) docker/make_secrets.py $(PROFILE)

up: .venv/class-archive ## start the embedded PostgreSQL and Kafka
	$(BIN)/antenna up

down: .venv/ready ## stop them
	$(BIN)/antenna down

lock: .venv/dev ## resolve the dependencies again into the lock files
	$(COMPILE) $(HERE) --extra dev --extra s3 --extra gs pyproject.toml requirements/installer.in \
		--output-file requirements/dev.lock
	$(COMPILE) $(LIKE_DEV) $(HERE) pyproject.toml --output-file requirements/run.lock
	$(COMPILE) $(LIKE_DEV) requirements/installer.in --output-file requirements/installer.lock
	$(COMPILE) $(LIKE_DEV) --extra s3 --extra gs pyproject.toml docker/antenna/requirements.in \
		--output-file docker/antenna/requirements.lock
	$(COMPILE) $(LIKE_DEV) --extra s3 --extra gs --extra spark pyproject.toml docker/antenna/requirements.in \
		--output-file docker/antenna/spark.lock
	for packages in connect ui; do $(COMPILE) $(LIKE_DEV) antenna_assets_tests/$$packages.in \
		--output-file antenna_assets_tests/$$packages.lock; done
	for peers in bench flink; do $(COMPILE) benchmarks/peers/$$peers.in \
		--output-file benchmarks/peers/$$peers.lock; done
	$(COMPILE) docker/superset/requirements.in --output-file docker/superset/requirements.lock
	$(BIN)/python -m antenna_assets.stack.jars --lock
	$(BIN)/python -m benchmarks.flink_jars
	$(BIN)/python -m antenna_assets_tests.containers.postgres_jar

COMPILE = requirements/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock'
LIKE_DEV := --constraint requirements/dev.lock
# What a checkout has beside a production's packages: the embedded services, and Spark.
HERE := --extra embedded --extra spark
