#!/usr/bin/env bash
# Set up on first use, then run the checks and the tests; --all adds the slow ones and installs what they need.
# usage: run_tests.sh [--all] [ARGUMENT ...]   arguments go on to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
all=
if [ "${1:-}" = --all ]; then
    all=yes
    shift
fi
bash scripts/setup.sh dev ${all:+app export scale}
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# On one core, while the tests run.
.venv/bin/mypy winclip datasets evaluation scripts tests ./*.py &
types=$!
if [ $# -gt 0 ]; then
    wait "$types"
    exec .venv/bin/python -m pytest "$@"
fi
# Tests run in as many processes as there are cores, 4 at most, each with one thread: threads that wait for each other
# on busy cores take many times as long.
export OMP_NUM_THREADS=1
shared=(-n auto --maxprocesses 4 --durations 10)
.venv/bin/python -m pytest "${shared[@]}" --dist loadfile -m "not slow"
wait "$types"
[ -n "$all" ] || exit 0

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
# The tests of the other runtimes and of Ray run in processes of their own: in one process, all tests end at times with
# a segmentation fault while Python only waits for a child process; the cause is not known.
apart=(tests/test_export.py tests/test_collection.py tests/test_app.py)
.venv/bin/python -m pytest "${shared[@]}" --dist worksteal -m slow "${apart[@]/#/--ignore=}" tests
.venv/bin/python -m pytest "${shared[@]}" --dist worksteal -m slow "${apart[@]}"
# The oldest open_clip whose numbers have to be the same.
old=.venv/open_clip-2.24.0
[ -d "$old" ] || .venv/bin/python -m pip install --quiet --no-deps --target "$old" open_clip_torch==2.24.0
PYTHONPATH="$old" .venv/bin/python -c 'import open_clip, sys; sys.exit("2.24.0" not in open_clip.__file__)'
PYTHONPATH="$old" .venv/bin/python -m pytest -q -n 2 tests/test_parity.py tests/test_backbone.py tests/test_properties.py \
    -m "not slow"
