# Everything is set up in .venv; nothing outside this folder is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo lab test lint clean

demo: .venv/ready
	$(BIN)/fednb demo --headless
	@echo
	@echo "To walk through it yourself, in JupyterLab:  make lab   (or: $(BIN)/fednb demo)"

lab: .venv/ready
	$(BIN)/fednb demo

test: .venv/ready
	$(BIN)/pytest --nbmake tests demo_notebooks/00_four_steps_by_hand.ipynb demo_notebooks/03_scorecard.ipynb demo_notebooks/04_boosting.ipynb

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

# an editable install leaves data files out, so kernelspecs and the lab extension are put in place by a command
.venv/ready: setup.cfg pyproject.toml setup.py $(wildcard native/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[demo,test]'
	$(BIN)/fednb kernels install
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
