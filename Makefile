# make reproduce   the main job: the eight settings     make reproduce ARGS="--profile quick --setting cifar10-resnet18-qcfs"
# make test        the test suite, on two cores          make test ARGS="-k fingerprint -x -n 0"
# make test-servers   the tests on real servers (CONTRIBUTING.md)
# make lint        style, types and the order of imports
# make docs        the documentation, in docs/_build/html
# The first call makes .venv with the exact versions of constraints.txt. PYTHON=/path/to/python chooses the interpreter.

.PHONY: reproduce test test-servers lint docs
.DEFAULT_GOAL := reproduce

READY := .venv/.ready

reproduce: $(READY)
	.venv/bin/dynconf reproduce $(ARGS)

# A file's tests stay together, for the sake of what they share, and the longest files begin (tests/conftest.py).
test: $(READY)
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/servers $(ARGS)

test-servers: $(READY)
	.venv/bin/python -m pytest tests/servers $(ARGS)

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@mkdir -p .venv/types # mypy follows no editable installation: it finds the folders by their installed names here
	@ln -sfn ../../flows .venv/types/dynconf_flows && ln -sfn ../../tasks .venv/types/dynconf_tasks
	MYPYPATH=.venv/types .venv/bin/mypy
	.venv/bin/lint-imports --no-cache

docs: $(READY)
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[docs]'
	.venv/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

# A .venv whose interpreter still works is brought up to date; any other is made anew. The pins were tried with
# Python 3.11, so that goes first. A python on the path may be a launcher for a version that is not installed: each
# candidate is asked.
$(READY): pyproject.toml constraints.txt
	@set -eu; \
	suits='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if ! .venv/bin/python -c "$$suits" >/dev/null 2>&1; then \
	    python=; \
	    for candidate in $${PYTHON:-python3.11 python3.12 python3.13 python3}; do \
	        if "$$candidate" -c "$$suits" >/dev/null 2>&1; then python=$$candidate; break; fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "dynconf needs Python 3.11 or newer with its venv module, and found none among:" \
	             "$${PYTHON:-python3.11 python3.12 python3.13 python3}." >&2; \
	        echo "Install one (on Debian and Ubuntu: apt install python3 python3-venv)," \
	             "or name it: make PYTHON=/path/to/python3.11 reproduce" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$python" --version) ($$python)."; \
	    "$$python" -m venv --clear .venv; \
	fi; \
	echo "Installing the exact versions of constraints.txt into .venv (1.5 to 3 minutes, 2 GB; more where torch's CUDA build comes along)."; \
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar on \
	    --constraint constraints.txt --editable '.[dev]'; \
	touch $@; \
	echo "The environment in .venv is ready."
