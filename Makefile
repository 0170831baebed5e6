# make demo [DATA=<folder>] | test | test-slow | test-all | lint | fuzz | oldest | supply | bench |
#      reproduce DATA=<folder> | reproduce-all DATA=<folder> | faults | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2
DATA ?=
OUT := $(if $(DATA),runs/data,runs/demo)
DATASET := $(if $(DATA),$(DATA),phantoms)
export MPLBACKEND := agg

.PHONY: demo test test-slow test-all lint mutate fuzz oldest supply bench reproduce reproduce-all \
  faults clean
.DEFAULT_GOAL := demo

$(VENV)/.runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what requirements.txt names into $(VENV): minutes, 3 GB."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-export.txt requirements-viewer.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -r requirements-export.txt -r requirements-viewer.txt \
	  -r requirements-dev.txt
	touch $@

# For the test of the report page; where none can be had, that test is skipped.
$(VENV)/.browser: $(VENV)/.dev
	lab/get_browser.sh $(BIN)/python
	touch $@

# Both notebooks, first to last cell, in real kernels. On phantoms it starts anew each time; on
# your own data (DATA=<folder>) an interrupted run goes on where it was.
demo: $(VENV)/.runtime
	$(if $(DATA),,rm -rf $(OUT))
	mkdir -p $(OUT)
	$(BIN)/python -m papermill --cwd . Training_Unet.ipynb $(OUT)/Training_Unet.ipynb \
	  -p DATASET "$(DATASET)" -p RUN $(OUT)/run
	$(BIN)/python -m papermill --cwd . Testing_Unet.ipynb $(OUT)/Testing_Unet.ipynb \
	  -p DATASET "$(DATASET)" -p MODEL $(OUT)/run -p OUT $(OUT)/evaluation
	@cat $(OUT)/evaluation/report.md
	@echo; echo "Report and figures: $(OUT)/evaluation/   executed notebooks: $(OUT)/"

# The quick tests: what is fast or shows most. On JAX those marked jax.
test: lint
	$(PYTEST) -m "not slow"
	KERAS_BACKEND=jax $(PYTEST) -m "jax and not slow"

# Child processes, kills, damaged files, browser, export; the rest of the Keras half on JAX.
test-slow: $(VENV)/.browser
	$(PYTEST) -m slow
	KERAS_BACKEND=jax $(PYTEST) -m "keras and not (jax and not slow)"

# Everything, with the coverage of unet_lib.
test-all: lint $(VENV)/.browser
	$(PYTEST) --cov --cov-report=term --cov-fail-under=92
	KERAS_BACKEND=jax $(PYTEST) -m keras

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

mutate:
	@echo "make mutate is gone: pip install mutmut, and point it at unet_lib and tests"; exit 2

# 20,000 damaged inputs, other ones in every run; the tests hold some that are always the same.
# Then 1,000 damaged weights files.
fuzz: $(VENV)/.dev
	FUZZ=20000 $(BIN)/python -m pytest -q -m slow tests/test_fuzz.py
	DAMAGED_FILES=1000 $(BIN)/python -m pytest -q -s tests/test_hdf5.py

# The lowest versions that requirements.txt allows, in a virtual environment of their own.
oldest:
	bash lab/oldest.sh $(PYTHON)

# Known faults and licences of the installed packages. Needs the network, so no test rests on it.
supply: $(VENV)/.dev
	-$(BIN)/pip-audit -r requirements.txt --progress-spinner off
	$(BIN)/python lab/licences.py > docs/licences.md
	@echo "licences: docs/licences.md"

# Speed, beside the peers of requirements-bench.txt; below 20 minutes on two quiet cores. Their
# environment sees the packages of .venv too; a peer that cannot be installed is named.
bench: $(VENV)/.runtime
	bash lab/bench.sh $(BIN)/python

# The README's row of the shipped model, from the images: minutes.
reproduce: $(VENV)/.runtime
	@test -n "$(DATA)" || { echo "usage: make reproduce DATA=<folder with BUSI>"; exit 2; }
	$(BIN)/python -m unet_lib evaluate --model busi-fold0 "$(DATA)" --fold 0 --out runs/reproduce

# All five folds of the best shipped recipe, compared image by image with the committed scores.
reproduce-all: $(VENV)/.runtime
	@test -n "$(DATA)" || { echo "usage: make reproduce-all DATA=<folder with BUSI>"; exit 2; }
	$(BIN)/python -m lab.reproduce experiments/joint/joint-BUSI "$(DATA)"

# 50 kills at random moments over the real commands; then full disks, read-only folders, files
# changed in the middle, an interrupted notebook cell. About an hour.
faults: $(VENV)/.dev
	FAULTS=$(or $(FAULTS),1) $(BIN)/python -m pytest tests/test_faults.py tests/test_training.py

clean:
	rm -rf runs/demo .pytest_cache .ruff_cache .hypothesis .coverage
