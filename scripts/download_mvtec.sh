#!/usr/bin/env bash
# Puts MVTec AD into place and lists it: bash scripts/download_mvtec.sh [ARCHIVE]
# ARCHIVE is the mvtec_anomaly_detection.tar.xz of its page; without it MVTEC_URL names its address.
# MVTEC_ROOT: the folder to fill (data/mvtec). MVTEC_SHA256: the checksum of another archive.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
echo "MVTec AD, licence CC BY-NC-SA 4.0 (no commercial use), https://www.mvtec.com/company/research/datasets/mvtec-ad"
bash "$repository/scripts/fetch_archive.sh" mvtec "${1:-${MVTEC_URL:-}}" \
    "${MVTEC_SHA256:-cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d}" \
    "${MVTEC_ROOT:-$repository/data/mvtec}" "*/train"
