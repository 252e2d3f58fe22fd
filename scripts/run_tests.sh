#!/usr/bin/env bash
# Set up on first use, then run every check and test. Arguments go on to pytest, which then leaves out the page's
# and the export's tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Gradio asks for an older Pillow than the one that resizes as the golden numbers have it.
bash scripts/setup.sh requirements-dev-app.txt .venv-app &
bash scripts/setup.sh requirements-dev.txt
wait $!
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
.venv/bin/mypy --python-executable .venv-app/bin/python \
    winclip datasets evaluation prediction report scripts mvtec.py visa.py test.py predict.py app.py tests
.venv/bin/python -m pytest "$@"
if [ $# = 0 ]; then
    .venv-app/bin/python -m pytest tests/test_app.py tests/test_export.py
fi
