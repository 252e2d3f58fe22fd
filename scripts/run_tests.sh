#!/usr/bin/env bash
# Set up on first use, then run every check and test. Arguments go on to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev app export
if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing chromium for the browser tests; this happens once" >&2
        (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium) >/dev/null ||
            echo "warning: apt-get could not install chromium; the browser tests cannot run and are skipped" >&2
    else
        echo "warning: chromium is missing, and only root with apt-get can install it here; the browser tests cannot" \
            "run and are skipped" >&2
    fi
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy winclip datasets demo evaluation prediction report benchmarks docs scripts tests ./*.py
.venv/bin/python -m pytest "$@"
