# The README's two commands are `make search` and `make test`; `make check` is the gate before a commit.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[search]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[search,dev]'
	touch $@

# timm's networks are what ours are compared with; without their requirements, which would bring a CUDA build of PyTorch
$(VENV)/.extras: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[search,dev,nni]'
	$(BIN)/pip install --quiet --no-deps 'torchvision==0.28.0' 'timm==1.0.31'
	$(BIN)/pip install --quiet huggingface_hub
	touch $@

search: $(VENV)/.installed  ## a fresh virtual environment, then the main job
	$(BIN)/nas search --device sa8295p --budget 5ms

check: $(VENV)/.dev  ## the gate: format, lint, types, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test: $(VENV)/.extras  ## what CI runs: the gate and the slow tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

docs: $(VENV)/.installed  ## the site, to site/
	$(BIN)/pip install --quiet --editable '.[search,docs]'
	$(BIN)/mkdocs build --strict

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: search check test docs format
