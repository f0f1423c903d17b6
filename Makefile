# Needs make, git and Python >= 3.11 on the PATH; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-batch bench-serve bench-routing lint fmt lock venv clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Classify real images on a Ray cluster started for the purpose
	$(BIN)/atriva demo

test: lint ## Run the checks and every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(STAMP) ## Measure beside OpenVINO and Ray alone (BENCH_ARGS="--quick", "--help")
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-batch: $(STAMP) ## Measure whole data sets beside OpenVINO and Ray Data alone
	$(BIN)/python -m benchmarks.batch $(BENCH_ARGS)

bench-serve: $(STAMP) ## Measure servers beside OpenVINO, plain Ray Serve and Triton
	$(BIN)/python -m benchmarks.serve $(BENCH_ARGS)

bench-routing: $(STAMP) ## Measure many replicas that take a known time beside the simulator
	$(BIN)/python -m benchmarks.routing $(BENCH_ARGS)

lint: $(STAMP) ## Check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## Format the code and mend what can be mended automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## Resolve the dependencies anew, for every supported Python
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --upgrade --output-file requirements.lock

venv: $(STAMP) ## Make or refresh the environment

# uv is taken from the PATH, else installed into the new environment by its pip.
$(STAMP): requirements.lock pyproject.toml Makefile hatch_build.py atriva_ray/serve/rpc/inference.proto
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, %s is %d.%d; try: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	@want=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	have=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	if [ "$$want" != "$$have" ]; then rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); fi
	@command -v uv >/dev/null || [ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet uv
	@uv=$$(command -v uv || echo $(BIN)/uv); cp "$$uv" $(VENV)/.uv && \
	VIRTUAL_ENV=$(VENV) $(VENV)/.uv pip sync --require-hashes requirements.lock && \
	VIRTUAL_ENV=$(VENV) $(VENV)/.uv pip install --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.uv && touch $@

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
