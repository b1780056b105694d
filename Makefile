# Everything is set up in .venv from constraints.txt; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# of its own: aioxmpp wants older libraries than the rest
OBSERVER := .venv-observer
# libvirt-python is built: only where libvirt-dev is
LIBVIRT := $(shell pkg-config --exists libvirt 2>/dev/null && command -v gcc >/dev/null && echo ,libvirt)

.PHONY: demo test lint bench bench-transfer docs observer clean

demo: $(VENV)/.installed
	$(BIN)/agency demo

# four workers on whatever machine: most tests wait for a server, or for the pause before a retry
test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 4 --dist loadgroup

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# as root; OPTIONS=--quick for a tenth of the sizes
bench-transfer: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.transfer $(OPTIONS)

docs: $(VENV)/.installed-dev
	$(BIN)/python -m vendor_modules.documentation > docs/vendors.md
	$(BIN)/python -m benchmarks.lines > docs/comparison.md

observer: $(OBSERVER)/.installed

clean:
	rm -rf $(VENV) $(OBSERVER) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev$(LIBVIRT)]'
	@touch $@ $(VENV)/.installed

$(OBSERVER)/.installed: pyproject.toml constraints-observer.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "The observer needs Python 3.11; say which: make observer PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(OBSERVER)
	$(OBSERVER)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-observer.txt --editable '.[aioxmpp]'
	@touch $@
