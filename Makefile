# One door to everything. Each target installs what it needs: a fresh clone can start with any of them.

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
SITE   := var/demo
# The first interpreter of at least 3.11; say PYTHON=… to choose another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# The foreign clients that tests/clients drives, and the packages that carry them (Debian's names).
CLIENT_PACKAGES := isync swaks libnet-ssleay-perl libauthen-sasl-perl neomutt curl tmux mpop fetchmail offlineimap3
CLIENT_COMMANDS := mbsync swaks neomutt curl tmux mpop fetchmail offlineimap
THUNDERBIRD_PACKAGES := thunderbird xvfb xdotool imagemagick
FAULT_ROUNDS ?= 50
DEMO_ARGS    ?=
MINUTES      ?= 30
FUZZ_ARGS    ?=
PYTEST_ARGS  ?=

.PHONY: venv up demo demo-site test check test-fast test-faults test-thunderbird sim fuzz bench rfc-coverage client-packages bench-packages clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found: install python3 (Debian 12: apt-get install python3 python3-venv), or say PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -c 'import ensurepip' 2>/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		{ apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } || \
		{ echo "make: $(PYTHON) has no venv module: apt-get install python3-venv" >&2; exit 1; }; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Three sites on this machine, one of them killed in the middle of the mail. DEMO_ARGS="--durability local" and the like.
demo: $(STAMP)
	$(VENV)/bin/angarium demo $(DEMO_ARGS)

up: demo-site
	$(VENV)/bin/angarium up $(SITE)

# Made once; afterwards its mail stays until someone deletes var/.
demo-site: $(STAMP)
	@test -e $(SITE)/angarium.toml || $(VENV)/bin/angarium init $(SITE) --site demo --domain example.org --port-base 20000 --demo

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

test: check client-packages
	$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# Without the foreign clients and the killing: for the minute before a commit.
test-fast: $(STAMP)
	$(PY) -m pytest -n 2 --dist loadfile tests/laws tests/contracts tests/transcripts $(PYTEST_ARGS)

# Everything in tests/faults, and what takes long elsewhere.
test-faults: $(STAMP)
	ANGARIUM_FAULT_ROUNDS=$(FAULT_ROUNDS) $(PY) -m pytest --timeout 7200 -m "long or not long" tests/faults $(PYTEST_ARGS)
	$(PY) -m pytest --timeout 7200 -m long --ignore tests/faults --ignore tests/clients/test_thunderbird.py tests $(PYTEST_ARGS)

# A mail program with windows, on a screen that nobody sees; screenshots in var/screenshots.
test-thunderbird: $(STAMP)
	@for c in thunderbird Xvfb xdotool import; do command -v $$c >/dev/null 2>&1 || missing=1; done; test -z "$$missing" && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(THUNDERBIRD_PACKAGES) >/dev/null; \
	else echo "make: apt-get install $(THUNDERBIRD_PACKAGES)" >&2; exit 1; fi
	$(PY) -m pytest --timeout 600 -m long -s tests/clients/test_thunderbird.py $(PYTEST_ARGS)

# Three sites in one process on a virtual clock, 500 seeds; SEED=n replays one with its trace.
sim: $(STAMP)
	PYTHONHASHSEED=0 $(PY) -m tests.sim

# Any bytes at everything that reads them, led by what they reach (atheris); MINUTES in all, one process.
fuzz: $(STAMP)
	@$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(PY) -m tests.fuzz --minutes $(MINUTES) $(FUZZ_ARGS)

bench: $(STAMP) bench-packages
	$(PY) -m bench

rfc-coverage: $(STAMP)
	$(PY) -m tests.rfc_coverage

# Node is large: where it is there already, its client is tried too.
IMAPFLOW = test -d tests/clients/node_modules/imapflow || ! command -v npm >/dev/null 2>&1 || \
	npm install --prefix tests/clients --silent --no-audit --no-fund --ignore-scripts --no-package-lock >/dev/null || \
	echo "make: could not install imapflow: its client tests are skipped" >&2

# Root installs what is missing; anybody else, or a machine without apt, goes on: the tests that lack a client say so.
client-packages:
	@missing=; for c in $(CLIENT_COMMANDS); do command -v $$c >/dev/null 2>&1 || missing="$$missing $$c"; done; \
	perl -MNet::SSLeay -e 1 2>/dev/null || missing="$$missing perl's-TLS"; \
	test -z "$$missing" && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq; \
		for p in $(CLIENT_PACKAGES); do DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$p >/dev/null || \
			echo "make: could not install $$p: its client tests are skipped" >&2; done; \
	else echo "make: missing$$missing: their client tests are skipped (apt-get install $(CLIENT_PACKAGES))" >&2; fi; true
	@$(IMAPFLOW)

bench-packages:
	@test -x /usr/sbin/smtp-source || command -v smtp-source >/dev/null 2>&1 && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then \
		apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postfix >/dev/null; \
	else echo "make: bench needs smtp-source: apt-get install postfix" >&2; exit 1; fi
	@test -x /usr/sbin/dovecot && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dovecot-imapd dovecot-fts-xapian isync >/dev/null \
			|| echo "make: no dovecot-imapd: IMAP is measured without a peer" >&2; \
	else echo "make: no dovecot-imapd: IMAP is measured without a peer" >&2; fi

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
