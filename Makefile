# Each target sets itself up in .venv: nothing but Python >= 3.10, pip and make is needed (docs also wants node and npm).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := settings.ini setup.py pyproject.toml

.PHONY: demo test docs bench samples samples-quick classifiers notebooks clean

demo: $(VENV)/user   ## train an Unrolled InfoGAN on handwritten digits, in three to five minutes
	$(BIN)/disentangle train infogan --data digits --game one-batch --loss nonsaturating --lr 1e-3 --lr-ratio 1 --cont-weight .1 --unroll 5 --seed 0 --out runs/demo --resume

test: $(VENV)/dev    ## everything: notebooks in sync and passing, command line, built wheel
	$(BIN)/python -m pytest tests -n 2 --dist worksteal

docs: $(VENV)/dev    ## build the site into _docs/
	$(BIN)/python tools/docs.py

bench: $(VENV)/dev   ## time and memory of an unrolled step against K, beside its peers (about two hours)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check higher==0.2.1 torchopt==0.7.3
	$(BIN)/python tools/bench.py
	$(BIN)/python tools/run_notebooks.py --slow 13_benchmarks

samples: $(VENV)/dev ## train what the pages show (tens of core-hours; it says how many, and can be interrupted) and run every notebook
	$(BIN)/python tools/samples.py
	$(BIN)/python tools/run_notebooks.py --slow
	$(BIN)/python tools/readme.py

samples-quick: $(VENV)/dev ## chapter 10 on the digits, far too short and on two seeds, with the same figures, into runs/quick/ (five minutes)
	$(BIN)/python tools/samples.py --quick

classifiers: $(VENV)/user ## train the digit classifiers that the package brings along, and print their accuracy (seven minutes on one core)
	$(BIN)/python tools/classifiers.py

notebooks: $(VENV)/dev ## run every notebook but for its slow cells, save the outputs, remake the README
	$(BIN)/nbdev_export
	$(BIN)/python tools/run_notebooks.py
	$(BIN)/python tools/readme.py

clean:               ## remove what was built, but for trained runs
	rm -rf $(VENV) _docs _proc node_modules build dist *.egg-info

$(VENV)/user: $(SETUP)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: Python 3.10 or newer is needed, found " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@echo "Setting up $(VENV): PyTorch is large, the first time takes some minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev: $(VENV)/user
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
