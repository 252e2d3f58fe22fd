#!/usr/bin/env bash
# Fetches VisA, puts it into place and lists it: bash scripts/download_visa.sh [ARCHIVE]
# ARCHIVE is an already downloaded VisA_20220922.tar; without it VISA_URL names another address.
# VISA_ROOT: the folder to fill (data/visa). VISA_SHA256: the checksum of another archive.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
echo "VisA, licence CC BY 4.0, https://github.com/amazon-science/spot-diff"
bash "$repository/scripts/fetch_archive.sh" visa \
    "${1:-${VISA_URL:-https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar}}" \
    "${VISA_SHA256:-2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362}" \
    "${VISA_ROOT:-$repository/data/visa}" "split_csv/1cls.csv"
