# Every target works from a bare clone: it needs Python 3.10-3.13 with venv, make, and a package index.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= .
PORT ?= 7860
DATA ?=
FLAGS ?=
PYTHONS ?= python3.10 python3.13

BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.ready-demo
DEV_READY := $(VENV)/.ready-dev
SAMPLE := build/sample-catalog
EXPORT := build/onnx
PARTS := catalog commands data encoding evaluation hub metrics sample_catalog serving space training utils

# The interpreter is checked before anything is built on it.
define CHECK_PYTHON
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"ACE-BERT needs Python 3.10-3.13, and {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12 ...")
endef
export CHECK_PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo docs sample test test-newest test-oldest test-pythons test-real test-server test-slow test-transformers test-versions benchmark quality types style audit clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo MODEL=<folder or Hub id> DATA=<folder or Hub id> PORT=<port> FLAGS=\"--title_column <name>\""
	@echo "  make test-server QDRANT=<URL of a Qdrant server>"
	@echo "  make test-real DATA=<folder of the real catalogue>"
	@echo "  make test-pythons PYTHONS=\"<interpreters>\" ($(PYTHONS))"
	@echo "  make benchmark ROWS=\"<names>\" (of limits, processor, query, product, training)"
	@echo "  PYTHON=<interpreter> chooses the Python that a new $(VENV) is made with"

demo: $(DEMO_READY) $(if $(DATA),,sample) ## Search a catalogue in the browser, on 127.0.0.1:7860
	$(BIN)/acebert space --model_name_or_path $(MODEL) --catalog $(or $(DATA),$(SAMPLE) --preset sample) --port $(PORT) $(FLAGS)

sample: $(SAMPLE)/.ready ## Draw the sample catalogue that the demo searches

# The slowest tests, and the time of each file and folder (tests/conftest.py).
TIMES := --durations=20

# One test process a core, each with one thread: more of either would only wait for the other.
test: $(DEV_READY) ## Run the fast tests (no network)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(TIMES)

# Each has an environment of its own. A name on the path may be no interpreter (pyenv's stand-in for a version that isn't
# chosen), so it is tried first; then those that pyenv keeps.
test-pythons: ## Run the fast tests under each of PYTHONS that can be had
	@passed= failed= missing=; \
	for name in $(PYTHONS); do \
		for python in "$$name" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/"$$name"; do \
			"$$python" -c '' 2>/dev/null && break; \
			python=; \
		done; \
		if [ -z "$$python" ]; then missing="$$missing $$name"; \
		elif $(MAKE) --no-print-directory test PYTHON="$$python" VENV="build/$${name##*/}"; then passed="$$passed $$name"; \
		else failed="$$failed $$name"; \
		fi; \
	done; \
	echo "The fast tests passed under:$${passed:- none}"; \
	if [ -n "$$missing" ]; then echo "NOT RUN, for there is no such interpreter:$$missing" >&2; fi; \
	if [ -n "$$failed" ]; then echo "FAILED under:$$failed" >&2; exit 1; fi

test-real: $(DEV_READY) ## Run the tests on the real catalogue: DATA=<folder>
	@test -d "$(DATA)" || { echo "make test-real: DATA='$(DATA)' is no folder; give the catalogue's folder: make test-real DATA=<folder>" >&2; exit 2; }
	HF_HUB_OFFLINE=1 ACEBERT_DATA="$(abspath $(DATA))" $(BIN)/python -m pytest -m real

# Each test has a name of its own on the server, and removes what it makes. QDRANT_API_KEY is the key, where one is needed.
test-server: $(DEV_READY) ## Run the catalogue's tests on a Qdrant server: QDRANT=<url>
	@test -n "$(QDRANT)" || { echo "make test-server: name the server, as QDRANT=http://127.0.0.1:6333" >&2; exit 2; }
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 ACEBERT_QDRANT="$(QDRANT)" $(BIN)/python -m pytest -n 2 tests/catalog -k server

test-slow: $(DEV_READY) ## Run the tests that take minutes, then test-pythons
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow --timeout 1800 $(TIMES)
	@$(MAKE) --no-print-directory test-pythons

# Lowest: what pyproject.toml names, at the lowest version that it allows, on the lowest Python; what those need is at its
# newest. Newest: everything, whatever constraints.txt says.
test-oldest: build/oldest/.ready ## Run the fast tests with the lowest versions that pyproject.toml allows (fetches them)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -n auto --dist worksteal $(TIMES)

test-newest: build/newest/.ready ## Run the fast tests with the newest versions of everything (fetches them)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 build/newest/bin/python -m pytest -n auto --dist worksteal $(TIMES)

test-versions: $(DEV_READY) ## Load and save checkpoints under every transformers that is promised (fetches them)
	OMP_NUM_THREADS=1 $(BIN)/python tests/versions/matrix.py

test-transformers: $(DEV_READY) ## Run transformers' own common tests on tiny models (fetches them)
	source=$$($(BIN)/python tests/transformers_common/fetch.py "$(CURDIR)/build/transformers") && cd tests/transformers_common && \
		HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TRANSFORMERS_SOURCE="$$source" "$(abspath $(BIN))/python" -m pytest -n auto -rs

benchmark: $(DEV_READY) ## Measure speed and memory against peers: minutes, on a quiet machine
	HF_HUB_OFFLINE=1 $(BIN)/acebert export-onnx --model_name_or_path $(MODEL) --output_dir $(EXPORT) --overwrite_output_dir
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/run.py --model_name_or_path $(MODEL) --export $(EXPORT) $(if $(ROWS),--only $(ROWS),--output_dir docs/results --page docs/performance.md)

quality: $(DEV_READY) types ## Check style, types and the imports between the parts, change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# The repository's root is the package, whatever the checkout is called, and mypy finds a package by its folder's name.
types: $(DEV_READY) ## Check the types
	@mkdir -p build/types
	@ln -sfn ../.. build/types/acebert
	cd build/types && "$(abspath $(BIN))/mypy" --config-file acebert/pyproject.toml acebert/*.py $(addprefix acebert/,$(PARTS))

# mkdocstrings finds the package by its name: its folder here has the package's name and links to its parts.
docs: $(DEV_READY) ## Build the documentation into build/site, all links checked
	@rm -rf build/package && mkdir -p build/package/acebert
	@ln -s $(addprefix ../../../,$(wildcard *.py) $(PARTS)) build/package/acebert/
	$(BIN)/mkdocs build --strict --quiet

style: $(DEV_READY) ## Fix the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# In an environment of its own, for its dependencies are none of ours. --strict: what can't be looked up is no pass.
audit: | $(BIN)/pip ## Look up known vulnerabilities of all locked versions, on the network
	$(BIN)/python -m venv build/audit
	build/audit/bin/python -m pip install -q pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean: ## Remove .venv, build/ and the tools' caches
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv $(VENV)

# A stamp is older than its inputs only when they changed, so a second call installs nothing.
$(DEMO_READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[space]'
	@touch $@

$(BIN)/uv: | $(BIN)/pip
	$(BIN)/python -m pip install -q uv

build/oldest/.ready: RESOLUTION := lowest-direct
build/oldest/.ready: VERSION := 3.10
build/newest/.ready: RESOLUTION := highest
build/newest/.ready: VERSION := 3.13
build/oldest/.ready build/newest/.ready: pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(VERSION) $(@D)
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --resolution $(RESOLUTION) --python $(@D)/bin/python \
		--no-emit-package acebert --output-file $(@D)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --requirement $(@D)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --editable .
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $(DEMO_READY) $@

$(SAMPLE)/.ready: $(wildcard sample_catalog/*.py sample_catalog/drawing/*.py) | $(DEMO_READY)
	rm -rf $(SAMPLE)
	$(BIN)/acebert sample-catalog --output_dir $(SAMPLE) --num_proc $$(getconf _NPROCESSORS_ONLN)
	@touch $@
