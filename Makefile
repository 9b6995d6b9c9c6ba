# The front door. `.ci/run` calls these same targets.

CARGO ?= cargo
ONCE ?=
ONLY ?=

NS ?= llm-d
OVERLAY ?= .

.PHONY: help demo test test-real test-kube test-monitoring test-compare bench compare check fmt clippy doc deny deploy undeploy doctor

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: ## Build, start three simulated pods with Hearth in front, run the cache-hit job (ONCE=1: then end)
	@ONCE=$(ONCE) gateway/demo.sh

test: ## The whole hermetic suite
	$(CARGO) test --workspace

test-real: ## Real vLLM on CPU, real clients, real load tools, KV events through faults: 25 min (ONLY="name ...": only checks so named)
	gateway/tests/real/run.sh $(ONLY)

test-kube: ## A real etcd and kube-apiserver: every manifest, pods in and out, every outage: 10 min (ONLY=...)
	manifests/tests/run.sh $(ONLY)

test-monitoring: ## A real Prometheus over a gateway and pods for a minute: every panel and rule has an answer
	manifests/tests/run.sh live/

doctor: ## What keeps the pods of NS from being used well (kubectl's cluster; needs `hearth`)
	hearth doctor --kubernetes-enabled=true --kubernetes-namespace $(NS)

deploy: ## kubectl apply the manifests (OVERLAY=overlays/NAME: one of those)
	kubectl apply --server-side -k manifests/$(OVERLAY)

undeploy: ## kubectl delete them, and whatever else bears our label in NS; says what is left
	kubectl delete --ignore-not-found -k manifests/$(OVERLAY)
	manifests/undeploy.sh $(NS)

bench: ## Every speed and memory bar, beside Envoy
	loadtest/bench/run.sh $(ONLY)

compare: ## Every router beside each other: cost, hits, balance, a report: an hour (QUICK=1: minutes; EPP_BIN=, AGW_BIN=)
	loadtest/compare/run.sh

test-compare: ## The comparison's arithmetic, its honest client, and a small run of it
	loadtest/compare/test.sh

check: fmt clippy doc ## Format, lints and docs, warnings denied

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

KUBE_CACHE = $${XDG_CACHE_HOME:-$$HOME/.cache}/hearth/kube

deny: ## Bans, licences and sources of the dependencies
	manifests/tests/setup.sh lint
	PATH=$(KUBE_CACHE)/python/bin:$$PATH $(CARGO) deny check bans licenses sources
