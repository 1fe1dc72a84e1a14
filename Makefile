# Two commands: `make demo` and `make test`. Both make .venv with the pinned constraints first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := export,cpu,openvino,serve,batch,demo,dev
STAMP := $(VENV)/.installed
# Processes that run the tests. Each file stays in one of them, so that what its tests share is made once.
WORKERS ?= 2

.PHONY: demo test install check unit notebooks scale slow release fuzz coverage clean
.DELETE_ON_ERROR:

demo: install
	$(BIN)/s2mlp-deploy demo --output build/demo

test: install check unit

install: $(STAMP)

# A venv that another machine or Python left behind is made anew. TensorRT-RTX has wheels for some platforms only, so
# its failure is told and the rest goes on.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s2mlp-deploy needs Python 3.11 or newer; pass PYTHON=...")'
	$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[rtx,cuda]' \
		|| echo 'TensorRT-RTX could not be installed here; engines will not be built.'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[conformance]' \
		|| echo 'The clients of others could not be installed here; tests of the service with them are skipped.'
	touch $@

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation, with warnings as errors; then what pages show: links, width, snippets and notebooks. Always anew,
# because Sphinx does not see when the code changes that reference pages are made from.
.PHONY: docs
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -rf build/site build/doctrees
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 -b html -c docs -d build/doctrees . build/site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(WORKERS) tests/docs

unit: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# The tutorials executed again, in place; `git diff` shows what they say otherwise.
notebooks: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python docs/tutorials/execute.py

# What takes too long, or too much room, for every run: Ray, and a venv of what a service installs.
scale: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scale]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_light_install.py tests/serving

# Everything of a release but publishing it (docs/contributing/release.md): dist/ has what is published, build/release/ what is
# said of it. TAG, in the environment too: the tag that is released, v and the version; none for a dry run.
release: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	rm -rf dist build/release
	mkdir -p build/release
	$(BIN)/python tools/changelog.py $${TAG:+--tag "$$TAG"} > build/release/notes.md
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tools/dependencies.py --output build/release
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'slow or not slow' tests/release

slow: install
	$(BIN)/python -m pytest -m slow

# What reads files of others, given damaged ones: SECONDS for each reader, READERS to choose some (a family or a name).
SECONDS ?= 20
READERS ?=
fuzz: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run_fuzz.py --seconds $(SECONDS) $(READERS)

# Which lines and branches of the package the tests run, by room, those in processes that they start among them. TESTS
# chooses some; the limits are for all.
TESTS ?=
coverage: install
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --timeout 900 $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet
	$(BIN)/python benchmarks/coverage_by_room.py build/coverage/coverage.json

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
