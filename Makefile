# `make` tells what there is to make. The work is in dev/ and in cargo.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/taskplatform
CARGO_TARGET_DIR ?= $(CACHE)/target
CLUSTER ?= taskplatform
GATEWAY_PORT ?= 8080
TEST_GATEWAY_PORT ?= 8081
export CACHE CARGO_TARGET_DIR CLUSTER GATEWAY_PORT TEST_GATEWAY_PORT

.DEFAULT_GOAL := help
.PHONY: help up down clean test test-long lint images operator crds bundle bench bench-api bench-scale chaos fuzz

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

up: ## a kind cluster, the operator, and the quickstart platform serving at http://127.0.0.1:8080
	@dev/up.sh

down: ## delete the cluster (and stop Docker, if `make up` started it)
	@dev/down.sh

clean: ## down, and remove every image and file that was built or cached
	@dev/clean.sh

test: ## lint, then every test: alone, on real databases, and end to end on the cluster
	@dev/test.sh

test-long: ## the same, with the tests that take minutes each
	@dev/test.sh --include-ignored

lint: ## format, shellcheck, helm lint, clippy
	@dev/lint.sh

images: ## build the images that changed and load them into the cluster
	@dev/images.sh

operator: images ## the images, then the CRD and the operator applied to the cluster
	@dev/operator.sh

crds: ## generate crds/taskplatform.yaml from its Rust type
	@dev/crds.sh

bundle: ## generate bundle/ for the Operator Lifecycle Manager from manifests/, crds/ and examples/
	@dev/bundle.sh

bench: ## time from apply to Ready, and what the operator takes
	@bench/platform.sh

bench-api: ## the task API beside the baseline that it replaces (25 min; bench/api.sh --quick: 3 min)
	@bench/api.sh

bench-scale: ## a thousand platforms, beside a plain client that creates the same objects (40 min)
	@bench/scale.sh

chaos: ## breaks the quickstart in every way that it should survive, and keeps a ledger of what was acknowledged (1 h; bench/chaos.sh --help)
	@bench/chaos.sh

fuzz: ## what the task API answers, against its OpenAPI document
	@dev/fuzz-api.sh
