#!/usr/bin/env bash
# Make .venv and install the requirements; does nothing when that is done already.
# usage: setup.sh [REQUIREMENTS]   (requirements.txt)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="${1:-requirements.txt}"
stamp="$root/.venv/installed-$requirements"

if cat "$root"/requirements*.txt | cmp -s - "$stamp"; then
    exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: python3 3.10 or newer is needed, found: $(python3 --version 2>&1 || true)" >&2
    exit 2
fi
echo "installing $requirements into $root/.venv; this happens once" >&2
if ! python3 -m venv "$root/.venv"; then
    echo "error: python3 -m venv failed; on Debian and Ubuntu install the package python3-venv" >&2
    exit 2
fi
(cd "$root" && .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements") >&2
# Last, so that an installation that was broken off is taken up again. Every list includes requirements.txt.
cat "$root"/requirements*.txt >"$root/.venv/installed-requirements.txt"
cat "$root"/requirements*.txt >"$stamp"
