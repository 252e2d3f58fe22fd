#!/usr/bin/env bash
# Puts a data set into place and lists it; download_mvtec.sh and download_visa.sh call this.
# usage: fetch_archive.sh NAME SOURCE SHA256 TARGET MARKER     SOURCE: an address or a file; MARKER: see unpack.py
# A download that breaks off is resumed by the next call. Nothing else reaches TARGET before the checksum is right.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source=$2 target=$4
python="$repository/.venv/bin/python"
[ -x "$python" ] || python=python3

fail() {
    echo "error: $*" >&2
    exit 2
}

if [ -e "$target/meta.json" ]; then
    echo "$target/meta.json is there, so nothing is fetched; remove it to fetch the data set again"
    exit 0
fi
[ -n "$source" ] || fail "no archive is named; give the file as the argument, or its address in MVTEC_URL"
mkdir -p "$target" || fail "cannot make the folder $target"
trap 'rmdir "$target" 2>/dev/null || true' EXIT # an empty folder would look like a data set

archive=$source
case "$source" in *://*)
    path=${source%%[?#]*} tries=5
    archive="$target/${path##*/}.part"
    until curl --fail --location --retry 5 --connect-timeout 30 --speed-limit 1 --speed-time 60 \
        --continue-at - --output "$archive" "$source"; do
        case $?:$((tries -= 1)) in
        18:[1-9]) ;;                 # broke off: resume
        33:[1-9]) rm -f "$archive" ;; # the server cannot resume: start again
        *) fail "cannot fetch $source; call this again to resume, or fetch it and give the file as the argument" ;;
        esac
    done
    ;;
esac
"$python" "$repository/scripts/unpack.py" "$archive" "$3" "$target" "$5" || exit 2
[ "$archive" = "$source" ] || rm "$archive"
"$python" "$repository/$1.py" --root "$target"
