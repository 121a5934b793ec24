# Everything a fresh machine needs; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What the tests run against, as packages of Debian. Mail clients: swaks can speak TLS only with the module beside it.
SYSTEM := curl openssl swaks libnet-ssleay-perl msmtp
# Servers, another implementation of DKIM, and another reader of mail. The tests start a Postfix and an OpenDKIM of their own; the
# system's are not to run.
SYSTEM += postfix sasl2-bin libsasl2-modules libmail-dkim-perl libemail-mime-perl opendkim
# Runs the script of the API's pages.
SYSTEM += nodejs

.PHONY: help run system test explore check format bench bench-reports soak clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)

run: $(READY)    ## run a local gateway for development (Ctrl-C stops it)
	$(BIN)/gateway localserve

system:          ## install what the tests need of the system (as root, on Debian), or say what is missing
	@command -v dpkg-query >/dev/null || { echo "not Debian: install yourself what these are: $(SYSTEM)"; exit 0; }; \
	missing=""; for package in $(SYSTEM); do \
	  dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
	  echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	else echo "missing:$$missing; install them, as in: apt-get install$$missing" >&2; exit 1; fi

test: $(READY)   ## run all tests (they need what `make system` installs); properties with the same examples each time
	$(BIN)/python -m pytest -n logical --dist loadfile --hypothesis-profile=ci

explore: $(READY) ## run the tests of properties with other examples each time
	$(BIN)/python -m pytest -n logical --dist loadfile -m hypothesis

check: $(READY) system ## format, lint, types and tests: what continuous integration runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy gateway plugins tests
	$(MAKE) test

format: $(READY) ## format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-reports: $(READY) ## score how real bounces are read: make bench-reports CORPUS=DIRECTORY
	$(BIN)/python -m benchmarks.bounces $(CORPUS)

bench: $(READY)  ## run the benchmarks and print a table; one of them: make bench ONLY=deliver
	$(BIN)/python -m benchmarks $(ONLY)

clean:           ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
