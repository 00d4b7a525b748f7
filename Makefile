# Everything a contributor runs. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# openssh-server: a test profiles this machine over ssh, with a server, a port and keys of its own. The compilers and the
# emulator build and run the C of `edgemeta export --c`. PostgreSQL: tests start servers of their own.
DEBIAN_PACKAGES := chromium openssh-client openssh-server gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi \
  qemu-system-arm postgresql$(if $(shell command -v npm 2>/dev/null),, nodejs npm)
WEB := $(HOME)/.cache/edgemeta/web
NODE := $(HOME)/.cache/edgemeta/node
ORT := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm
ARGS ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help .venv demo test lint docs bench wheel release-check web node nni clean system-deps

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(STAMP)  ## create .venv with the pinned versions

# torch comes first and alone, so that the pin decides which build is taken before anything else asks for torch.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test,dev,docs,c,postgresql]'
	touch $@

demo: $(STAMP)  ## from this machine to a checked bundle and a report, in minutes (ARGS='--quick')
	$(BIN)/edgemeta demo $(ARGS)

test: lint  ## linters, type checker, import rule, then the whole suite (ARGS='-k name'; JOBS=0: one process)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(STAMP)  ## linters, type checker and import rule alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_layers.py

docs: $(STAMP)  ## the site in build/site, every block of every page run (ARGS='-k farm'; WHOLE=1: not shortened, hours)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	EDGEMETA_DOCS=$(if $(WHOLE),whole,all) $(BIN)/python -m pytest tests/docs -n $(JOBS) --dist load $(ARGS)

bench: $(STAMP)  ## every benchmark and its tables, into runs/bench (ARGS=--quick: minutes; in full: hours; ARGS='--only NAME')
	$(BIN)/python tools/bench/all.py $(if $(GOALS),--goals $(GOALS)) $(ARGS)

wheel: $(STAMP) web  ## build dist/edgemeta-*.whl, with onnxruntime-web in it where npm is
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

# What a release must hold before it is uploaded; TAG=v1.2.3 as well, where a tag is what is released.
release-check: wheel  ## wheel and sdist, checked, installed in an empty environment and run (TAG=v1.2.3: versions agree)
	$(BIN)/python -m build --sdist --no-isolation --outdir dist
	$(BIN)/python tools/release.py --dist dist $(if $(TAG),--tag $(TAG)) --constraints constraints.txt

# The page's three files of it go into export/web/ort too, for the wheel: its users need no npm. Without npm the checks
# that need it skip with a reason, so nothing here is fatal.
web:  ## onnxruntime-web for the page of `edgemeta serve` and for profiles under Node, into ~/.cache/edgemeta/web
	@if ! command -v npm >/dev/null 2>&1; then echo "onnxruntime-web: no npm here; going on without"; \
	else mkdir -p "$(WEB)" export/web/ort && cp export/web/package.json "$(WEB)" \
	  && npm install --prefix "$(WEB)" --no-audit --no-fund --no-package-lock --ignore-scripts \
	  && cp $(addprefix "$(WEB)"/node_modules/onnxruntime-web/dist/,$(ORT)) export/web/ort \
	  || echo "onnxruntime-web: could not install, going on without"; fi

node:  ## onnxruntime-node and sharp, for the tests and timings of the runtime for Node, into ~/.cache/edgemeta/node
	@if ! command -v npm >/dev/null 2>&1; then echo "onnxruntime-node: no npm here; going on without"; \
	else mkdir -p "$(NODE)" && cp export/web/node.json "$(NODE)/package.json" \
	  && npm install --prefix "$(NODE)" --no-audit --no-fund --no-package-lock --ignore-scripts \
	  || echo "onnxruntime-node: could not install, going on without"; fi

# An environment apart: NNI 3.0 wants a filelock older than 3.12, and the one that is pinned is not.
nni:  ## the tests of the NNI integration, in .venv-nni with the same versions but one
	test -x .venv-nni/bin/python || $(PYTHON) -m venv .venv-nni
	sed 's/^filelock==.*/filelock==3.11.0/' constraints.txt > .venv-nni/constraints.txt
	.venv-nni/bin/python -m pip install --disable-pip-version-check -c .venv-nni/constraints.txt torch
	.venv-nni/bin/python -m pip install --disable-pip-version-check -c .venv-nni/constraints.txt -e '.[test,nni]'
	.venv-nni/bin/python -m pytest tests/integrations edgemeta/integrations $(ARGS)

clean:  ## remove what the targets above made, .venv included; runs/ stays
	rm -rf .venv .venv-nni build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find edgemeta export tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# Some checks drive a browser or an ssh server; without these packages they skip with a reason, so nothing here is fatal.
system-deps:  ## Debian packages that a few checks use (root only; says so and goes on otherwise)
	@missing=; for package in $(DEBIAN_PACKAGES); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then echo "system packages: all present"; \
	elif ! command -v apt-get >/dev/null 2>&1; then echo "system packages: no apt-get here; going on without:$$missing"; \
	elif [ "$$(id -u)" != 0 ]; then echo "system packages: not root; going on without:$$missing"; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
	  || echo "system packages: could not install, going on without:$$missing"; fi
