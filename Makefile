# Two commands: `make run` makes every result, `make test` checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NOTEBOOKS := $(wildcard *.ipynb)
PARALLEL := --numprocesses=auto --maxschedchunk=4

.PHONY: help run test test-all test-browser lab outputs handout solution slides lint bench speedrun report page clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

run: $(VENV)/.run  ## execute the notebooks into build/, write figures/, print a table of results
	$(BIN)/python -m dlutils.tools.notebooks

test: $(VENV)/.run  ## pytest, and ODE and SDE whole, as on another processor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) tests

test-all: $(VENV)/.run  ## the same, and all that takes long: configurations, more examples, benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "" --hypothesis-profile=many tests

test-browser: $(VENV)/.run $(VENV)/.browser  ## run the notebooks in JupyterLab and the page, in Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) tests/browser

lab: $(VENV)/.run  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab $(NOTEBOOKS)

outputs: $(VENV)/.run  ## execute the committed notebooks in place
	$(BIN)/python -m dlutils.tools.notebooks --in-place

handout: $(VENV)/.run  ## write the notebooks without answers to build/handout/ (BLANK=integrator,...: functions too)
	$(BIN)/python -m dlutils.tools.handout $(if $(BLANK),--blank "$(BLANK)")

solution: $(VENV)/.run  ## write the same with answers and outputs to build/solution/
	$(BIN)/python -m dlutils.tools.handout --solution

slides: $(VENV)/.run $(VENV)/.slides  ## write slide shows of the notebooks to build/slides/
	$(BIN)/python -m dlutils.tools.publish --slides

lint: $(VENV)/.lint  ## check style, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.run $(VENV)/.bench  ## measure speed and quality against other libraries (QUICK=1: in minutes)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

speedrun: $(VENV)/.run $(VENV)/.bench  ## race diffrax and zuko to 0.005 nats (QUICK=1: one density, one sample)
	$(BIN)/python -m benchmarks.speedrun $(if $(QUICK),--quick)

page: $(VENV)/.run  ## put the page for the browser into one file, page/index.html
	$(BIN)/python -m page.build

report:  ## build build/report/report.pdf from figures/, where LaTeX is installed
	@command -v latexmk >/dev/null || { \
	  echo "make: there is no latexmk. Install TeX Live (Debian: apt install latexmk texlive-latex-extra)"; \
	  echo "or upload report/ and figures/ to an online LaTeX editor."; exit 1; }
	cd report && latexmk -pdf -interaction=nonstopmode -outdir=../build/report report.tex

clean:  ## remove what the other commands made
	rm -rf $(VENV) build

GROUPS := $(VENV)/.lint $(VENV)/.browser $(VENV)/.slides $(VENV)/.bench
WHAT = $(if $(filter $(GROUPS),$@),--group $(@F:.%=%),--requirement requirements.txt)
$(VENV)/.slides: OPTIONS := --no-deps
$(VENV)/.run: requirements.txt
$(GROUPS): pyproject.toml
$(VENV)/.run $(GROUPS): | $(BIN)/python
	@echo "Installing $(lastword $(WHAT)) into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet $(OPTIONS) $(WHAT) || { \
	  echo "make: pip could not install $(lastword $(WHAT)). Is the network, or a package index, reachable?"; \
	  exit 1; }
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no $(PYTHON). Install Python 3.11 or newer, or say make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip  # 25.1 is the first to know --group
