# make run: mini-llm tells a story.  make test: the whole suite.  make check: ruff, types, tests.
PYTHON ?= python3
BIN := .venv/bin
PROMPT ?= Once upon a time

.PHONY: run test test-web test-clients test-live check lint bench clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/test-installed: .venv/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps openai-whisper==20250625  # its triton and CUDA are not needed on a CPU
	$(BIN)/pip install --quiet --no-deps --target .venv/references torchvision==0.28.0 timm==1.0.31 open_clip_torch==3.3.0
	touch $@

run: .venv/installed
	$(BIN)/brolly run mini-llm "$(PROMPT)"

test: .venv/test-installed
	$(BIN)/python -m pytest -n auto --dist loadfile

test-web: .venv/test-installed
	$(BIN)/pip install --quiet 'playwright>=1.50'
	which chromium chromium-browser google-chrome > /dev/null || $(BIN)/playwright install --with-deps chromium
	$(BIN)/python -m pytest tests/web

.venv/clients/installed: tests/clients/requirements.txt
	$(PYTHON) -m venv .venv/clients
	.venv/clients/bin/pip install --quiet --requirement tests/clients/requirements.txt
	touch $@

test-clients: .venv/test-installed .venv/clients/installed
	npm install --prefix tests/clients/node --no-audit --no-fund --silent
	$(BIN)/python scripts/compatibility.py $(CLIENTS)

test-live: .venv/test-installed  # asks vendors whose keys are set; costs some cents
	BROLLY_LIVE=1 $(BIN)/python -m pytest -s tests/live

lint: .venv/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: .venv/test-installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/identify.py
	$(BIN)/python benchmarks/llm.py
	$(BIN)/python benchmarks/pretrain.py
	$(BIN)/python benchmarks/vision.py
	$(BIN)/python benchmarks/audio.py
	$(BIN)/python benchmarks/int8.py
	$(BIN)/pip install --quiet 'transformers[serving]'
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/tune.py
	$(BIN)/python benchmarks/retrieve.py

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache
