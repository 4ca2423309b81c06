# The commands of this repository. `make bench` and `make test` need nothing set up: they make .venv themselves.
# Python is called by its relative path, since a folder's name may hold a space.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help bench history results-keep results-fetch publish preview check-bench review trust peers test test-isa lint format clean

# What users write goes through the environment, since it may hold quotes.
export ONLY MACHINE BASE HEAD BUDGET REVS

PY := .venv/bin/python
BOOTSTRAP := scripts/bootstrap
C_SOURCES := $(wildcard csrc/*.c csrc/kernels/*.c)
C_FILES := $(C_SOURCES) $(wildcard csrc/*.h csrc/kernels/*.h tests/c/*.c benchmarks/*.c)
CLANG_FORMAT := $(PY) -c 'import clang_format; clang_format.clang_format()'
PUBLISH := $(PY) tracking/asv_command.py publish --no-pull
# What the pages are made of, where it changed since; a folder does when a file of it is removed.
PAGES := .asv/results asv.conf.json tracking/dashboard tracking/jumps.py tracking/results.py bitnet_core/targets.py
NEWER := find $(PAGES) ! -path '*/__pycache__*' -newer .asv/html/index.json
C_STRICT := -std=c11 -O2 -pthread -Wall -Wextra -Werror -Icsrc

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 :/p' Makefile | awk -F ' :' '{ printf "%-22s%s\n", $$1, $$2 }'

bench: ## measure this commit, publish the dashboard, print the targets (13 minutes; QUICK=1: 3; ONLY=Decode; goes on when interrupted, FRESH=1: from the start)
	@$(BOOTSTRAP) bench
	@$(PY) scripts/bench.py $(if $(filter-out 0,$(QUICK)),--quick) $(if $(ONLY),--only "$$ONLY") $(if $(MACHINE),--machine "$$MACHINE") \
		$(if $(filter-out 0,$(FRESH)),--fresh)

history: ## measure the commits of REVS=main~20..main (or ALL), publish their curves; goes on where it was (BUDGET=hours; QUICK=1; ONLY=Decode)
	@test -n "$$REVS" || { echo "history: of which commits? make history REVS=main~20..main, or REVS=ALL" >&2; exit 2; }
	@$(BOOTSTRAP) bench
	@$(PY) -m tracking history $(if $(REVS),--revs "$$REVS") $(if $(ONLY),--only "$$ONLY") $(if $(BUDGET),--budget "$$BUDGET") \
		$(if $(MACHINE),--machine "$$MACHINE") $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

results-keep: ## commit the results to the branch `results`, off main (PUSH=1: and push it)
	@$(BOOTSTRAP) bench
	@$(PY) -m tracking archive keep $(if $(filter-out 0,$(PUSH)),--push)

results-fetch: ## merge the branch `results`, the remote's too, into the results here
	@$(BOOTSTRAP) bench
	@$(PY) -m tracking archive fetch

publish: ## make the dashboard of what is measured; bench, history and preview do it themselves
	@$(BOOTSTRAP) bench
	@$(PUBLISH)

preview: ## show the dashboard in a browser, published anew if something is newer; Ctrl-C ends it
	@if [ ! -e .asv/results/benchmarks.json ] && [ ! -e .asv/html/index.json ]; then \
		echo "preview: nothing is measured yet; \`make bench\` measures this commit and publishes (13 minutes; QUICK=1: 3)" >&2; \
		exit 2; \
	fi
	@$(BOOTSTRAP) bench
	@head=$$(git rev-parse HEAD); \
	if [ -e .asv/results/benchmarks.json ] && { [ ! -e .asv/html/index.json ] || [ -n "$$($(NEWER))" ] || \
			[ "$$head" != "$$(cat .asv/published 2>/dev/null)" ]; }; then \
		echo "preview: something is newer than the pages; publishing them anew"; \
		$(PUBLISH) && echo "$$head" >.asv/published; \
	fi
	@trap : INT; $(PY) -m asv preview --browser

check-bench: ## try every benchmark of the tiny model once, saving nothing; fails when one of them does
	@$(BOOTSTRAP) bench
	@$(PY) -m asv check --environment "existing:$$PWD/$(PY)"
	@$(PY) scripts/bench.py --smoke $(if $(ONLY),--only "$$ONLY")

review: ## compare HEAD=revision with BASE=revision, its parent if none: worse, better, same? (BUDGET=20 minutes; ONLY=Decode; FRESH=1)
	@$(BOOTSTRAP) bench
	@$(PY) -m tracking review $(if $(BASE),--base "$$BASE") $(if $(HEAD),--head "$$HEAD") $(if $(ONLY),--bench "$$ONLY") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(MACHINE),--machine "$$MACHINE") $(if $(filter-out 0,$(FRESH)),--fresh)

trust: ## try reviews whose answer is known, in as many parts as you like (an hour; ARGS='--only same --same 2', ARGS=--summary)
	@$(BOOTSTRAP) bench
	@$(PY) -m tracking trust $(ARGS)

peers: ## compare with llama-cpp-python on the same weights (2 minutes; the first time 5 more to compile; QUICK=1: a small model)
	@$(BOOTSTRAP)
	@$(PY) scripts/peers.py $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

test: ## run the test suite (ARGS='-k gguf -x')
	@$(BOOTSTRAP) test
	@$(PY) -m pytest $(ARGS)

test-isa: ## run the test suite once for each instruction set level this machine has
	@$(BOOTSTRAP) test
	@for isa in $$($(PY) -c 'from bitnet_core import kernels; print(*kernels.isa_levels())'); do \
		echo "== BITNET_ISA=$$isa"; BITNET_ISA=$$isa $(PY) -m pytest $(ARGS) || exit 1; \
	done

lint: ## ruff, mypy, clang-format, the C sources without a warning from gcc and clang, actionlint, shellcheck
	@$(BOOTSTRAP) lint
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)
	@scripts/ci/lint
	@for cc in gcc clang; do \
		command -v $$cc >/dev/null || { echo "lint: no $$cc here, so its warnings were not looked for"; continue; }; \
		echo "$$cc $(C_STRICT)"; \
		for file in $(C_SOURCES); do $$cc $(C_STRICT) -c "$$file" -o /dev/null || exit 1; done; \
	done

format: ## bring Python and C sources into the form that lint asks for
	@$(BOOTSTRAP) lint
	$(PY) -m ruff format
	$(CLANG_FORMAT) -i $(C_FILES)

clean: ## remove what was built and installed; measured results (.asv/results) stay
	rm -rf .venv .peers build *.egg-info bitnet_core/_native.c bitnet_core/_native*.so .asv/env .asv/html
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache
