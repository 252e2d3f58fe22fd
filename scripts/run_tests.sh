#!/usr/bin/env bash
# Set up on first use, then run every check and test. Arguments go on to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy winclip datasets evaluation scripts mvtec.py visa.py test.py tests
.venv/bin/python -m pytest "$@"
