# The commands a newcomer needs; each installs what it is missing first (apt and pip) and says what.
PY := .venv/bin/python
# Tests make their links, routes and mounts in namespaces of their own, so that the host's are never at stake.
PRIVATE := unshare --net --mount --propagation private

.DEFAULT_GOAL := help
.PHONY: help setup up down test lint unit kernel cluster chaos lab bench clean

help:            ## show this list
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST)

setup:           ## install what is missing: apt packages and .venv
	@scripts/setup run

up: setup        ## a master and three nodes on this host, and a sample to look at
	@$(PY) -m minikube_raw up --nodes 3 --sample

down:            ## remove the cluster and everything it made on this host
	@if [ -x .venv/bin/minikube-raw ]; then $(PY) -m minikube_raw down; else echo "nothing to do: make up has not run here"; fi

test:            ## every check and test, about 15 minutes on two cores
	@scripts/setup test
	@$(MAKE) --no-print-directory lint unit kernel cluster

lint:            ## ruff, strict mypy, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

unit:            ## tests that need no root
	$(PY) -m pytest tests/unit -q

kernel:          ## tests on real kernel objects; need root
	$(PRIVATE) $(PY) -m pytest tests/kernel tests/plugins -q

cluster:         ## a whole cluster and a real kubectl, end to end; needs root
	$(PRIVATE) $(PY) -m pytest tests/onehost -q
	$(PRIVATE) $(PY) -m pytest tests/cluster tests/conformance -q
	$(PRIVATE) $(PY) -m pytest tests/chaos -q

chaos:           ## a thousand kills with a seed, then one at every step of a pod's life; 15 minutes (CHAOS_SEED=… CHAOS_KILLS=…)
	$(PRIVATE) env CHAOS_KILLS=$${CHAOS_KILLS:-1000} $(PY) -m pytest tests/chaos -q
	$(PRIVATE) env CRASH_STRIDE=1 $(PY) -m pytest tests/kernel/runtime/test_runtime_crash_points.py -q

lab:             ## tests in a machine with systemd, AppArmor and cgroup v2 alone (QEMU, no KVM needed; LAB_KERNEL=stable|backports)
	@scripts/setup lab
	$(PY) -m tests.lab.image
	$(PRIVATE) $(PY) -m pytest tests/lab -q --timeout 1800 $(ARGS)

bench:           ## the benchmark tables of docs/benchmarks.md, peers in the same run
	@scripts/setup bench
	$(PRIVATE) $(PY) -m tests.bench $(ARGS)

clean:           ## forget caches and the virtual environment
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .cache build dist
