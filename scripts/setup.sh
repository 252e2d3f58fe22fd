#!/usr/bin/env bash
# Make an environment and install the requirements; does nothing when that is done already.
# usage: setup.sh [REQUIREMENTS [FOLDER]]   (requirements.txt .venv)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="${1:-requirements.txt}"
environment="$root/${2:-.venv}"
stamp="$environment/installed-$requirements"

if cat "$root"/requirements*.txt | cmp -s - "$stamp"; then
    exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: python3 3.10 or newer is needed, found: $(python3 --version 2>&1 || true)" >&2
    exit 2
fi
echo "installing $requirements into $environment; this happens once" >&2
if ! python3 -m venv "$environment"; then
    echo "error: python3 -m venv failed; on Debian and Ubuntu install the package python3-venv" >&2
    exit 2
fi
(cd "$root" && "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements") >&2
# Last, so that an installation that was broken off is taken up again. Every list includes requirements.txt.
cat "$root"/requirements*.txt >"$environment/installed-requirements.txt"
cat "$root"/requirements*.txt >"$stamp"
