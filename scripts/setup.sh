#!/usr/bin/env bash
# Make .venv and install the project into it, editable; does nothing when that is done already.
# usage: setup.sh [EXTRA ...]   with the extras of pyproject.toml: app, export, scale, dev
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
environment="$root/.venv"

wanted() { # what the environment is made from
    cat "$root"/requirements*.txt "$root/pyproject.toml" "$root/scripts/setup.sh"
}

installed() { # EXTRA: whether what is wanted now, with this extra, is in the environment
    wanted | cmp -s - "$environment/installed-$1"
}

missing=()
for extra in plain "$@"; do
    installed "$extra" || missing+=("$extra")
done
if [ "${#missing[@]}" = 0 ]; then
    exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: python3 3.10 or newer is needed, found: $(python3 --version 2>&1 || true)" >&2
    exit 2
fi
extras="$(IFS=, && echo "$*")"
echo "installing requirements${extras:+ and those of $extras} into $environment; this happens once" >&2
if ! python3 -m venv "$environment"; then
    echo "error: python3 -m venv failed; on Debian and Ubuntu install the package python3-venv" >&2
    exit 2
fi
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -e "$root${extras:+[$extras]}" >&2
# pip compiles on one core. Packages hold templates that are no Python, which it passes over as well.
"$environment/bin/python" -m compileall -qq -j 0 "$environment/lib" || true
# Last, so that an installation that was broken off is taken up again.
for extra in plain "$@"; do
    wanted >"$environment/installed-$extra"
done
