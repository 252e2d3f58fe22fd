#!/usr/bin/env bash
# Set up on first use, then run every check and test. Arguments go on to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev app export scale
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
# On one core, while the tests run.
.venv/bin/mypy winclip collection datasets demo evaluation prediction report benchmarks docs scripts tests ./*.py &
types=$!
if [ $# -gt 0 ]; then
    wait "$types"
    exec .venv/bin/python -m pytest "$@"
fi
# The other runtimes, and Ray, are loaded in processes of their own: with them in the process of all tests, the kernel ends
# it at times with a segmentation fault while Python does nothing but wait for a child process; why is not known.
apart=(tests/test_export.py tests/test_collection.py tests/test_app.py)
# Files of tests are shared out among as many processes as there are cores, 4 at most, each of one thread: threads that
# wait for each other on taken cores take many times as long. The files that take longest begin.
export OMP_NUM_THREADS=1
shared=(-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 10)
.venv/bin/python -m pytest "${shared[@]}" "${apart[@]/#/--ignore=}" tests/test_scripts.py tests/test_backbone.py tests
wait "$types"
.venv/bin/python -m pytest "${shared[@]}" "${apart[@]}"
