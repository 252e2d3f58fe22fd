#!/usr/bin/env bash
# Run the parity and backbone tests against open_clip 2.24.0 in place of the installed release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
old=.venv/open_clip-2.24.0
[ -d "$old" ] || .venv/bin/python -m pip install --quiet --no-deps --target "$old" open_clip_torch==2.24.0
PYTHONPATH="$old" .venv/bin/python -c 'import open_clip, sys; sys.exit("2.24.0" not in open_clip.__file__)'
PYTHONPATH="$old" .venv/bin/python -m pytest tests/test_parity.py tests/test_backbone.py tests/test_properties.py "$@"
