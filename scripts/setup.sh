#!/usr/bin/env bash
# Make .venv and install the project into it, editable; does nothing when that is done already.
# usage: setup.sh [--cpu] [--here] [EXTRA ...]   with the extras of pyproject.toml: app, export, scale, dev
#   --cpu    torch's CPU build; its index could not be reached where this was written, so this was not tried with it
#   --here   into the environment that is active, of venv or conda, instead of .venv
# WINCLIP_PYTHON names the interpreter that makes .venv (python3).
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
index=https://download.pytorch.org/whl/cpu

fail() {
    echo "error: $*" >&2
    exit 2
}

environment="$root/.venv" python="${WINCLIP_PYTHON:-python3}" cpu='' here='' extras=''
for word in "$@"; do
    case "$word" in
    --cpu) cpu=cpu ;;
    --here)
        here=yes environment="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
        [ -n "$environment" ] || fail "--here installs into the active environment, and none is active;" \
            "activate one, or leave --here out"
        ;;
    *)
        [ -f "$root/requirements-$word.txt" ] ||
            fail "setup.sh takes --cpu, --here, app, export, scale and dev, not '$word'"
        extras="${extras:+$extras,}$word"
        ;;
    esac
done

made_from() { # what the environment is made from
    cat "$root"/requirements*.txt "$root/pyproject.toml" "$root/scripts/setup.sh"
}

done_with() { # NAME: the file that says that the environment has this, as it is wanted now
    echo "$environment/winclip-installed-$1"
}

version() { # PYTHON: such as 3.12
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

check_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "Python 3.10 or newer is needed, found: $("$python" --version 2>&1 || true);" \
            "${here:+activate another environment, or leave --here out and }name one with WINCLIP_PYTHON=python3.12"
}

have_pip() {
    "$environment/bin/python" -m pip --version >/dev/null 2>&1
}

# Once the CPU build, always the CPU build: changed requirements do not fetch the other.
[ ! -f "$(done_with cpu)" ] || cpu=cpu
if [ -z "$here" ] && [ -n "${WINCLIP_PYTHON:-}" ] && [ -x "$environment/bin/python" ]; then
    check_python
    [ "$(version "$python")" = "$(version "$environment/bin/python")" ] ||
        fail "$environment was not made with the Python of WINCLIP_PYTHON, $python; remove that folder to make it anew"
fi
missing=
for part in plain $cpu ${extras//,/ }; do
    made_from | cmp -s - "$(done_with "$part")" || missing=yes
done
[ -n "$missing" ] || exit 0

if [ -n "$here" ] || have_pip; then
    python="$environment/bin/python"
fi
check_python
echo "installing requirements${extras:+ and those of $extras} into $environment; this happens once" >&2
if ! compgen -G "$environment/lib/python3*/site-packages/torch" >/dev/null; then
    more="${extras:+, and up to 0.5 GB for each of $extras}"
    # Of torch 2.14 on Linux 6.4 GB are measured, the others estimated; macOS has only the CPU build.
    if [ -n "$cpu" ] || [ "$(uname)" != Linux ]; then
        echo "about 0.4 GB are fetched and take 1.6 GB$more" >&2
    else
        echo "about 3.2 GB are fetched and take 6.4 GB$more, most of it torch for NVIDIA GPUs" >&2
        if ! command -v nvidia-smi >/dev/null && [ ! -e /dev/nvidia0 ] && [ ! -e /proc/driver/nvidia ]; then
            echo "no NVIDIA GPU is found; 'bash scripts/setup.sh --cpu' installs torch's CPU build, about a" \
                "quarter of that, from $index" >&2
        fi
    fi
fi
if ! have_pip; then
    [ -z "$here" ] || fail "$environment has no pip; '$python -m ensurepip' adds it"
    "$python" -m venv "$environment" ||
        fail "$python -m venv failed; on Debian and Ubuntu install the package python3-venv"
fi

install() { # ARGUMENT ...
    local quiet=--quiet
    [ ! -t 2 ] || quiet=
    "$environment/bin/python" -m pip install $quiet --disable-pip-version-check --no-compile "$@" >&2
}

if [ -n "$cpu" ]; then
    # From that index alone: with the indexes of its configuration, pip would also find torchvision with CUDA.
    # What is installed then satisfies the other requirements.
    # shellcheck disable=SC2046
    PIP_EXTRA_INDEX_URL="$index" PIP_FIND_LINKS="$index" \
        install --index-url "$index" $(grep -E '^torch(vision)?([^a-z]|$)' "$root/requirements.txt") ||
        fail "pip could not install torch from $index; call this again" \
            "when that can be reached, or without --cpu"
    ! compgen -G "$environment/lib/python3*/site-packages/torch/lib/libtorch_cuda*" >/dev/null ||
        fail "$environment holds torch with CUDA already; call this again after removing that folder, or after" \
            "$environment/bin/python -m pip uninstall torch torchvision"
fi
install -e "$root${extras:+[$extras]}" || fail "pip could not install the requirements; call this again to go on"
# pip compiles on one core. Some packages hold templates that are not Python; it skips them.
"$environment/bin/python" -m compileall -qq -j 0 "$environment/lib" || true
# Last, so that an interrupted installation is resumed.
for part in plain $cpu ${extras//,/ }; do
    made_from >"$(done_with "$part")"
done
