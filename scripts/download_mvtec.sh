#!/usr/bin/env bash
# Puts MVTec AD into place and lists it: bash scripts/download_mvtec.sh [ARCHIVE]
#
# ARCHIVE is the downloaded mvtec_anomaly_detection.tar.xz; without it MVTEC_URL names its address.
# MVTEC_ROOT: the folder to fill (data/mvtec). MVTEC_SHA256: the checksum of another archive.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=${MVTEC_ROOT:-$repository/data/mvtec}
sha256=${MVTEC_SHA256:-cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d}
archive=${1:-${MVTEC_URL:-}}

python=$repository/.venv/bin/python
[ -x "$python" ] || python=python3

if [ -e "$root/meta.json" ]; then
    echo "$root/meta.json is there, so nothing is fetched; remove it to fetch MVTec AD again"
    exit 0
fi
echo "MVTec AD, licence CC BY-NC-SA 4.0 (no commercial use), https://www.mvtec.com/company/research/datasets/mvtec-ad"
if [ -z "$archive" ]; then
    cat >&2 <<'TEXT'
error: the address of the archive is not given, and MVTec hands it out on its page after a form. Either
  download mvtec_anomaly_detection.tar.xz there and run: bash scripts/download_mvtec.sh PATH/mvtec_anomaly_detection.tar.xz
  or copy the address of the download there and run:    MVTEC_URL=ADDRESS bash scripts/download_mvtec.sh
TEXT
    exit 2
fi

bash "$repository/scripts/fetch_archive.sh" "$archive" "$sha256" "$root" "*/train"
"$python" "$repository/mvtec.py" --root "$root"
