#!/usr/bin/env bash
# Fetches an archive, checks its sha256 and unpacks it into a folder.
#
#   fetch_archive.sh SOURCE SHA256 TARGET MARKER
#
# SOURCE is an address or an archive on this machine. MARKER is a pattern that the unpacked data set
# matches ("*/train"): with it one folder wrapped around the data set is recognised and left away.
# A download that breaks off is resumed by the next call. Nothing reaches TARGET before the checksum
# is right and the archive is unpacked as a whole; what is in TARGET already stays as it is.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

[ $# -eq 4 ] || fail "usage: fetch_archive.sh SOURCE SHA256 TARGET MARKER"
source=$1
wanted=$2
target=$3
marker=$4
attempts=${FETCH_ATTEMPTS:-5}

sha256_of() {
    if command -v sha256sum >/dev/null; then
        sha256sum <"$1" | cut -d " " -f 1
    elif command -v shasum >/dev/null; then
        shasum -a 256 <"$1" | cut -d " " -f 1
    else
        fail "neither sha256sum nor shasum is installed; install one of them"
    fi
}

# Downloads what is still missing of the file $1. Returns 0 when it is complete, 1 when another try
# may help, 2 when none will.
download_rest() {
    local status=0 code
    if command -v curl >/dev/null; then
        code=$(curl --fail --location --show-error --connect-timeout 30 --speed-limit 1 --speed-time 60 \
            --continue-at - --output "$1" --write-out '%{http_code}' "$source") || status=$?
        # 33, 36 and answer 416: this part cannot be continued (the server knows no ranges, or the
        # part is longer than the file).
        if [ "$status" -eq 33 ] || [ "$status" -eq 36 ] || [ "$code" = 416 ]; then
            rm -f "$1"
            return 1
        fi
        case "$status:$code" in
            0:*) return 0 ;;
            22:408 | 22:429 | 22:5*) return 1 ;;
            1:* | 3:* | 22:* | 37:*) return 2 ;;
            *) return 1 ;;
        esac
    elif command -v wget >/dev/null; then
        wget --continue --tries=1 --output-document="$1" "$source" || return 1
    else
        fail "neither curl nor wget is installed; install one of them, or fetch $source yourself and give the file"
    fi
}

download() {
    local part=$1 attempt status
    # A part that is whole already would be refused by servers as out of range.
    if [ -f "$part" ] && [ "$(sha256_of "$part")" = "$wanted" ]; then
        return
    fi
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        status=0
        download_rest "$part" || status=$?
        [ "$status" -ne 0 ] || return 0
        [ "$status" -ne 2 ] || break
        if [ "$attempt" -lt "$attempts" ]; then
            echo "download broke off, trying again ($attempt of $attempts)" >&2
            sleep "$attempt"
        fi
    done
    fail "cannot fetch $source; call this again to resume, or fetch it yourself and give the file as the argument"
}

unpacked=""
clean_up() {
    if [ -n "$unpacked" ]; then
        rm -rf "$unpacked"
    fi
    # An empty folder would look like a data set.
    rmdir "$target" 2>/dev/null || true
}
trap clean_up EXIT
mkdir -p "$target" || fail "cannot make the folder $target"

downloaded=no
case "$source" in
    *://*)
        name=${source%%[?#]*}
        name=${name##*/}
        archive=$target/${name:-archive}
        downloaded=yes
        if [ ! -f "$archive" ]; then
            echo "fetching $source"
            download "$archive.part"
            mv "$archive.part" "$archive"
        fi
        ;;
    *)
        archive=$source
        [ -f "$archive" ] || fail "archive $archive does not exist"
        ;;
esac

echo "checking the sha256 of $archive"
found=$(sha256_of "$archive")
if [ "$found" != "$wanted" ]; then
    if [ "$downloaded" = yes ]; then
        # Kept for a look, under a name that the next call does not take for the archive.
        mv "$archive" "$archive.rejected"
        archive=$archive.rejected
    fi
    fail "the sha256 of $archive is $found, expected $wanted; nothing was unpacked"
fi

unpacked=$(mktemp -d "$target/.unpack.XXXXXX")
echo "unpacking to $target"
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$scripts/../.venv/bin/python
[ -x "$python" ] || python=python3
"$python" "$scripts/unpack.py" "$archive" "$unpacked" || exit $?

matches() {
    compgen -G "$1/$marker" >/dev/null
}
top=$unpacked
if ! matches "$top"; then
    for folder in "$unpacked"/*/; do
        if matches "${folder%/}"; then
            top=${folder%/}
        fi
    done
fi
matches "$top" || fail "$archive holds no $marker, so it is another data set; nothing was moved to $target"

for entry in "$top"/*; do
    if [ -e "$target/${entry##*/}" ]; then
        echo "kept as it was: $target/${entry##*/}"
    else
        mv "$entry" "$target/"
    fi
done
if [ "$downloaded" = yes ]; then
    rm -f "$archive"
fi
