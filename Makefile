# The front door. `make help` lists the targets; each can be run twice and does only what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/winnow
UV      := $(CACHE)/uv/bin/uv
BIN     := .venv/bin
LOCAL   := .local
CLUSTER := cluster/cluster
PARTS   := classifier trainer-image server-image operator kubectl-plugin
SOURCES := $(addsuffix /src,$(PARTS))
CODE    := $(SOURCES) kubectl-plugin/setup.py tests benchmarks images examples docs cluster
# A cluster of the user's own is used when KUBECONFIG names one and REGISTRY says where its nodes pull from.
REGISTRY ?=
TAG      ?= dev
BUILDER  ?= docker
PYTEST   := $(BIN)/python -m pytest -p no:cacheprovider

.PHONY: help demo fuzz test test-unit test-models test-processes test-integration test-e2e cluster-up cluster-down images install uninstall lint format generate lock bench clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

demo: $(LOCAL)/venv  ## Everything: a local Kubernetes, images, chart, then real e-mail from rows to a served classifier
	@$(BIN)/python examples/email-spam/demo.py

test:  ## All that CI needs, unit to end to end, on a clean machine
	@for part in lint test-unit test-models test-processes test-integration test-e2e; do \
	  echo "== make $$part"; started=$$SECONDS; $(MAKE) --no-print-directory $$part; echo "== make $$part passed in $$((SECONDS - started)) s"; done

test-unit: $(LOCAL)/venv  ## Unit tests: no models, no programs, no cluster, a minute on two cores
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist worksteal tests/unit

test-models: $(LOCAL)/venv  ## Trainings and servers of tiny models within the tests' own process, two minutes
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist worksteal tests/models

test-processes: $(LOCAL)/venv $(LOCAL)/deps $(LOCAL)/kserve  ## Trainings, imports and servers as real processes, killed, on full disks, beside a real S3 server: no cluster
	$(CLUSTER) build versitygw
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist worksteal tests/processes --timeout=1200

test-integration: $(LOCAL)/venv $(LOCAL)/deps  ## The operator against a real etcd, kube-apiserver and controller-manager
	$(CLUSTER) build etcd kubernetes helm
	$(PYTEST) -n 4 --dist worksteal tests/integration

test-e2e: install $(LOCAL)/browser  ## The whole product on the local cluster: pods, real models, a real browser
	$(CLUSTER) build
	eval "$$($(CLUSTER) env)" && $(PYTEST) tests/e2e --timeout=900

fuzz: $(LOCAL)/fuzz  ## Throw bytes at the row readers for SECONDS=60; what went wrong stays in .local/fuzz
	cd $(LOCAL)/fuzz && mkdir -p corpus && PYTHONPATH="$(CURDIR)/classifier/src:$$(echo $(CURDIR)/.venv/lib/python3*/site-packages)" \
	  venv/bin/python $(CURDIR)/tests/fuzz/rows.py corpus -max_total_time=$(or $(SECONDS),60) -timeout=5 -rss_limit_mb=2000 -max_len=600

cluster-up: $(LOCAL)/deps  ## Start the local Kubernetes; prints export KUBECONFIG=…
	$(CLUSTER) up

cluster-down:  ## End exactly what cluster-up started
	$(CLUSTER) down

ifeq ($(REGISTRY),)
images: cluster-up $(LOCAL)/venv  ## Build the images into the local cluster, or push them to REGISTRY=…
	$(BIN)/python images/build.py local
install: images  ## Install the chart: namespace winnow-system, release winnow
	$(CLUSTER) helm upgrade --install winnow helm/winnow --namespace winnow-system --create-namespace --wait --timeout 3m \
	  --reset-then-reuse-values --set-string "operator.podAnnotations.winnow\.dev/image=$$($(BIN)/python images/build.py mark operator)" >/dev/null
	@echo "Winnow is installed. Next: $(CLUSTER) kubectl apply -f examples/smallest/winnow.yaml"
uninstall:  ## Remove the chart; CRDs and the users' objects stay
	$(CLUSTER) helm uninstall winnow --namespace winnow-system --wait --ignore-not-found
else
images: $(LOCAL)/venv
	$(BIN)/python images/build.py push --registry $(REGISTRY) --tag $(TAG) --builder $(BUILDER)
install: images
	helm upgrade --install winnow helm/winnow --namespace winnow-system --create-namespace --wait --timeout 5m \
	  --reset-then-reuse-values --set-string image.registry=$(REGISTRY) --set-string image.tag=$(TAG)
uninstall:
	helm uninstall winnow --namespace winnow-system --wait --ignore-not-found
endif

lint: $(LOCAL)/venv  ## Formatting, lint, types, import rules, generated files
	$(BIN)/ruff format --check -q $(CODE)
	$(BIN)/ruff check -q $(CODE)
	$(BIN)/mypy $(SOURCES) tests/unit
	for part in tests/models tests/processes tests/integration tests/e2e benchmarks cluster/winnow_cluster images/*.py images/*/*.py examples/*/*.py docs/*.py kubectl-plugin/setup.py; do $(BIN)/mypy $$part; done
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: $(LOCAL)/venv  ## Format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

generate: $(LOCAL)/venv  ## Write what is generated: docs/api.md, the chart's copy of the CRDs
	$(BIN)/python docs/generate.py

lock: $(UV)  ## Pin every dependency again, with hashes
	cd requirements && $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade dev.in -o dev.txt
	cd requirements && $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade fuzz.in -o fuzz.txt
	cd requirements && $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade kserve.in -o kserve.txt
	cd requirements && for part in classifier trainer server operator plugin; do $(UV) pip compile -q --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -c dev.txt $$part.in -o $$part.txt; done

bench: $(LOCAL)/venv $(LOCAL)/deps  ## Each benchmark beside its peer; results to be copied into docs/benchmarks.md
	$(CLUSTER) build
	failed=; for part in importing training serving_peers serving serving_batcher serving_overload operator_speed; do \
	  $(BIN)/python benchmarks/$$part.py || failed="$$failed $$part"; done; \
	  [[ -z $$failed ]] || { echo "below a bar, or failed:$$failed" >&2; exit 1; }

clean:  ## Remove what was built here (the cache with programs and images stays: see README)
	rm -rf .venv $(LOCAL)/venv $(LOCAL)/images .mypy_cache .ruff_cache .hypothesis

$(UV):
	@echo "== uv, into $(CACHE)/uv"
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	python3 -m venv $(CACHE)/uv || { apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null && python3 -m venv $(CACHE)/uv; }
	$(CACHE)/uv/bin/python -m pip install -q uv==0.13.9

$(LOCAL)/venv: requirements/dev.txt $(UV) $(addsuffix /pyproject.toml,$(PARTS)) kubectl-plugin/setup.py
	@echo "== Python environment .venv"
	test -x $(BIN)/python || $(UV) venv -q --no-python-downloads --python "$$(command -v python3)" .venv
	$(UV) pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation $(foreach part,$(PARTS),-e $(part))
	mkdir -p $(LOCAL) && touch $@

$(LOCAL)/fuzz: requirements/fuzz.txt $(LOCAL)/venv
	$(UV) venv -q --clear --no-python-downloads --python $(BIN)/python $@/venv
	$(UV) pip sync -q --python $@/venv/bin/python --require-hashes requirements/fuzz.txt
	touch $@

$(LOCAL)/kserve: requirements/kserve.txt $(LOCAL)/venv
	@echo "== KServe's client, in an environment of its own"
	$(UV) venv -q --clear --no-python-downloads --python $(BIN)/python $@/venv
	$(UV) pip sync -q --python $@/venv/bin/python --require-hashes requirements/kserve.txt
	touch $@

$(LOCAL)/deps:
	@echo "== Debian packages of the local cluster"
	$(CLUSTER) deps
	mkdir -p $(LOCAL) && touch $@

$(LOCAL)/browser:
	@echo "== Debian's chromium"
	command -v chromium >/dev/null && command -v chromedriver >/dev/null || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null; }
	mkdir -p $(LOCAL) && touch $@
