# Everything runs in .venv, which `make install` makes from requirements.lock; every target does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
EXTRAS := ray report digits pareto optuna onnx gguf dataframe dev
export RAY_USAGE_STATS_ENABLED := 0
# Compiled modules are kept, whatever the environment says: the tests start many interpreters.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs bench fuzz fuzz-files mutants chaos lock format clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## Make .venv with the locked packages; leaves .venv/bin/evocompress

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "evocompress needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: install ## Run the main job on 8x8 digits (within three minutes on two cores)
	$(BIN)/evocompress run configs/digits.toml --out $(OUT)

test: install ## Run the whole test suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: install ## Lint and type-check: ruff, mypy, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & mypy=$$!; $(BIN)/pyright; pyright=$$?; wait $$mypy && exit $$pyright

docs: install ## Build the site of docs/ into site/ (installs mkdocs at the first time; then without network)
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt -c requirements.lock
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

bench: install ## Measure what docs/measured.md quotes, into benchmarks/RESULTS.md (about an hour)
	$(BIN)/python -m benchmarks

fuzz: install ## Fuzz the decoder with atheris (FUZZ_SECONDS=60)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python tests/fuzz/fuzz_decoder.py -max_total_time=$(or $(FUZZ_SECONDS),60)

fuzz-files: install ## Read edited files whose checksums are good, at a bounded cost (FILES=1000000, SEED=0)
	$(BIN)/python tests/fuzz/fuzz_files.py $(or $(FILES),1000000) --seed $(or $(SEED),0)

mutants: install ## Change the code in many places, and see whether the nearest tests notice (ONLY=, COUNT=30, SEED=0, AGAIN=)
	@test -d build/mutants/packages/cosmic_ray || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --target build/mutants/packages cosmic-ray==8.7.0
	$(BIN)/python tests/mutation/mutation.py --only "$(ONLY)" --count $(or $(COUNT),30) --seed $(or $(SEED),0) $(if $(AGAIN),--again)

chaos: install ## Kill, stop, fill and unmount what runs stand on, and compare with undisturbed ones (ROUNDS=1, SEED=0, ONLY=)
	@test -d build/chaos/server/moto || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/chaos/server 'moto[server]==5.2.5'
	@test -d build/chaos/client/s3fs || $(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/chaos/client \
	  "s3fs==$$($(BIN)/python -c 'import fsspec; print(fsspec.__version__)')"
	$(BIN)/python tests/chaos/chaos.py --rounds $(or $(ROUNDS),1) --seed $(or $(SEED),0) --only "$(ONLY)"

format: install ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install ## Pin the newest versions that fit pyproject.toml into requirements.lock
	$(BIN)/pip-compile $(addprefix --extra=,$(EXTRAS)) --constraint=constraints.txt --output-file=requirements.lock --strip-extras \
	  --upgrade --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate --quiet pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock

clean: ## Remove .venv and caches (not runs/)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
