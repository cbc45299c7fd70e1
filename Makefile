# Two commands for a newcomer: `make demo` runs the main job, `make test` proves that everything holds. Both set everything up.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-slow test-every test-anywhere lint docs bench clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# A file of tests has one process, so that its tests share what they made.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
test: $(VENV)/.installed-dev lint
	$(PYTEST) -m "not slow and not every"

test-slow: $(VENV)/.installed-slow
	$(PYTEST) -m slow

# What those prove of one model of each kind, for all the others: before a release, and after a change that concerns all models.
test-every: $(VENV)/.installed-dev
	$(PYTEST) -m every

# `make test` as other machines would run it, one kind after the other: takes hours. `make test-avx2` is one of them.
OTHERS := sse41 avx2 without-onednn one-core busy elsewhere
test-anywhere: $(OTHERS:%=test-%)
test-sse41: export ONEDNN_MAX_CPU_ISA := SSE41
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-without-onednn: export TF_ENABLE_ONEDNN_OPTS := 0
test-one-core: BESIDE := taskset -c 0
test-busy: BESIDE := $(BIN)/python tests/kit/neighbours.py 8
test-elsewhere: export TZ := Asia/Kathmandu
test-elsewhere: export LC_ALL := C
test-elsewhere: export PYTHONUTF8 := 0
test-elsewhere: export PYTHONCOERCECLOCALE := 0
test-elsewhere: export PYTHONHASHSEED := 4321
.PHONY: $(OTHERS:%=test-%)
$(OTHERS:%=test-%): $(VENV)/.installed-dev
	$(BESIDE) $(PYTEST) -m "not slow and not every"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

# The pages of docs/ and the API reference, offline, into build/docs. Warnings are errors, and a link within that leads nowhere is one.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html -d build/doctrees docs build/docs

# DATA is a prepared dataset (made clicks if absent); FUXICTR and DEEPCTR are Pythons that have them, FUXICTR_ZOO is the folder
# model_zoo of a checkout of FuxiCTR: see benchmarks/peers.py.
RESULTS := benchmarks/results
PEERS := $(if $(FUXICTR),--fuxictr $(FUXICTR)) $(if $(DEEPCTR),--deepctr $(DEEPCTR))
PEERS += $(if $(FUXICTR_ZOO),--fuxictr-zoo $(FUXICTR_ZOO))
LARGE := --optimizers lazy_adam exact_lazy_adam --steps 20 --rounds 3
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/training.py --json $(RESULTS)/training.json
	$(BIN)/python benchmarks/models.py $(if $(DATA),--data $(DATA)) --json $(RESULTS)/models.json
	$(BIN)/python benchmarks/inference.py $(if $(DATA),--data $(DATA)) --json $(RESULTS)/inference.json
	$(BIN)/python benchmarks/serving.py --json $(RESULTS)/serving.json
	$(BIN)/python benchmarks/serving.py --history 20 --batches 64 512 --json $(RESULTS)/serving_history.json
	$(BIN)/python benchmarks/hot_swap.py --json $(RESULTS)/hot_swap.json
	$(BIN)/python benchmarks/batches.py --json $(RESULTS)/batches.json
	$(BIN)/python benchmarks/metrics.py $(if $(FUXICTR),--fuxictr $(FUXICTR)) --json $(RESULTS)/metrics.json
	$(BIN)/python benchmarks/contrast_memory.py --json $(RESULTS)/contrast_memory.json
	$(BIN)/python benchmarks/vocabulary.py --json $(RESULTS)/vocabulary.json
	$(BIN)/python benchmarks/peers.py $(PEERS) --json $(RESULTS)/peers.json
	$(BIN)/python benchmarks/peers.py $(PEERS) $(LARGE) --data criteo-1m --models DNN TF4CTR --json $(RESULTS)/peers_1m.json
	$(BIN)/python benchmarks/peers.py $(PEERS) $(LARGE) --data criteo-5m --models DNN --json $(RESULTS)/peers_5m.json
	$(if $(FUXICTR_ZOO),$(BIN)/python benchmarks/peers.py $(PEERS) --models all --batch-size 4096 --json $(RESULTS)/zoo_4096.json)
	$(if $(FUXICTR_ZOO),$(BIN)/python benchmarks/peers.py $(PEERS) --models all --batch-size 10000 --json $(RESULTS)/zoo_10000.json)
	$(BIN)/python benchmarks/malloc.py --json $(RESULTS)/malloc.json
	$(BIN)/python benchmarks/scoring.py --json $(RESULTS)/scoring.json
	$(BIN)/python benchmarks/page.py

$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "tfctr needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# What tests/kit/engines.py connects to; PySpark, of 456 MB, only where there is Java for it.
COMMA := ,
$(VENV)/.installed-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[postgres$(if $(shell command -v java),$(COMMA)spark)]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
