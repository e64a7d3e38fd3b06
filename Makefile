# Everything runs in .venv, which each target makes or refreshes by itself from requirements.lock.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.lock-stamp

# The stamp holds the folder it was made in and the sum of the lock: a moved checkout, a half-made .venv, one of another
# lock and one whose Python has gone are made anew. So is one of another version than that of a PYTHON named by the user.
HERE := pwd -P; cksum < requirements.lock
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
NAMED := $(if $(filter file,$(origin PYTHON)),$(PY),"$(PYTHON)")
SOUND := $(shell [ "`cat $(STAMP) 2>/dev/null`" = "`$(HERE)`" ] && \
    found=`$(PY) $(VERSION)` && [ "$$found" = "`$(NAMED) $(VERSION)`" ] && echo yes)

# Empty, so that a kernel chooses the backend that draws into the notebook.
export MPLBACKEND =
# What lies there would count as installed, or be imported instead.
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help reproduce notebooks seeds study test coverage test-install test-lab verify sweep faults lab html bench lint lock clean anew

help: ## list the targets
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

##@ The paper
reproduce: $(STAMP) ## the whole paper into results/: the notebooks that something changed for; all with FORCE=1
	@$(PY) -m sobolev_utils.paper.reproduce $(if $(FORCE),--force)

notebooks: $(STAMP) ## the same, and the outputs into the committed notebooks
	@$(PY) -m sobolev_utils.paper.reproduce --keep-outputs $(if $(FORCE),--force)

seeds: $(STAMP) ## the R^2 table under ten seeds, into results/tables/r2_seeds.csv
	@$(PY) -m sobolev_utils.studies.run seeds $(if $(SCHEDULER),--scheduler $(SCHEDULER))

study: $(STAMP) ## ten seeds of the pruning methods and of extensions of the paper: pruning.csv, beyond.csv
	@$(PY) -m sobolev_utils.studies.run pruning beyond $(if $(SCHEDULER),--scheduler $(SCHEDULER))

##@ Is it right?
test: $(STAMP) ## the tests, and the notebooks against their committed outputs
	@results=`mktemp -d` && trap 'rm -rf "$$results"' EXIT && trap 'exit 130' HUP INT TERM && \
	SOBOLEV_RESULTS="$$results" $(PY) -m pytest notebooks tests --numprocesses=2 \
	    --nbval --nbval-current-env --nbval-cell-timeout=600

coverage: $(STAMP) ## the tests alone, half as slow again, and the lines of the package that none of them runs
	@$(PY) -m pytest tests --numprocesses=2 \
	    --cov=sobolev_utils --cov-report=term-missing:skip-covered --cov-fail-under=95

test-install: $(STAMP) ## the lock, by the oldest and the newest pip and by each Python that is here; needs a network
	@SOBOLEV_INSTALL=1 $(PY) -m pytest tests/test_install.py

test-lab: $(STAMP) ## every notebook in JupyterLab, and the site, in a browser without a screen; pictures in build/
	@$(PY) -m pytest tests/lab --verbose --capture=no

verify: $(STAMP) ## the rigour of the enclosures, against ball arithmetic and samples
	@PYTHONPATH=tests $(PY) -m verify
	@PYTHONPATH=tests $(PY) -m verify.elementary --quick

faults: $(STAMP) ## what kills, full disks and other accidents leave behind, into results/tables/faults.csv
	@PYTHONPATH=tests $(PY) -m faults

##@ Look and measure
lab: $(STAMP) ## JupyterLab on the notebooks, for this machine alone and by a token
	@$(PY) -m jupyterlab --ip=127.0.0.1 notebooks

html: $(STAMP) ## README, committed notebooks and docstrings as pages to read: results/html/index.html
	@rm -rf build/sphinx
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going -d build/sphinx/doctrees docs build/sphinx/html
	@rm -rf results/html && mv build/sphinx/html results/html && echo "open results/html/index.html"

sweep: $(STAMP) ## all notebooks under a few dozen combinations of parameters, two hours, into sweep.csv
	@$(PY) tests/benchmarks/sweep.py

bench: $(STAMP) ## time, memory and how far it repeats, into results/tables/: timings, repeatability.csv and others
	@$(PY) tests/benchmarks/run.py
	@$(PY) tests/benchmarks/growth.py
	@$(PY) tests/benchmarks/steps.py
	@$(PY) tests/benchmarks/repeat.py

##@ Keep it
lint: $(STAMP) ## style of the package, the tests, the notebooks and the site; which wing imports from which
	@$(PY) -m ruff check sobolev_utils tests notebooks docs
	@$(PY) -m ruff format --check sobolev_utils tests notebooks docs
	@report=`$(VENV)/bin/lint-imports --no-cache` || { echo "$$report"; exit 1; }

lock: ## requirements.lock again, from pyproject.toml, by the .venv of the lock before
	@[ -x $(PY) ] || $(MAKE) $(STAMP)
	@$(PY) -m uv pip compile pyproject.toml --quiet --extra dev --universal --generate-hashes --python-version 3.11 \
	    --no-emit-index-url --no-annotate --custom-compile-command 'make lock' -o requirements.lock

clean: ## remove what is rebuilt and never committed, and the caches
	@rm -rf results/data results/notebooks results/html docs/api docs/notebooks build .pytest_cache .ruff_cache .coverage*
	@find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml postBuild
ifneq ($(SOUND),yes)
	@found=`"$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' \
	    2>/dev/null` || { echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $${found:-no Python that runs}:" \
	    "name another, as in 'make $(or $(firstword $(MAKECMDGOALS)),test) PYTHON=python3.12'" >&2; exit 1; }
	@echo "Making $(VENV) from requirements.lock: once, a few minutes"
	@"$(PYTHON)" -m venv --clear "$(VENV)"
endif
	@rm -f $@
	@./postBuild $(PY)
	@{ $(HERE); } > $@

ifneq ($(SOUND),yes)
$(STAMP): anew
endif
