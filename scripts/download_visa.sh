#!/usr/bin/env bash
# Fetches VisA, puts it into place and lists it: bash scripts/download_visa.sh [ARCHIVE]
#
# ARCHIVE is an already downloaded VisA_20220922.tar; without it VISA_URL names another address.
# VISA_ROOT: the folder to fill (data/visa). VISA_SHA256: the checksum of another archive.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
root=${VISA_ROOT:-$repository/data/visa}
sha256=${VISA_SHA256:-2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362}
archive=${1:-${VISA_URL:-https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar}}

python=$repository/.venv/bin/python
[ -x "$python" ] || python=python3

if [ -e "$root/meta.json" ]; then
    echo "$root/meta.json is there, so nothing is fetched; remove it to fetch VisA again"
    exit 0
fi
echo "VisA, licence CC BY 4.0, https://github.com/amazon-science/spot-diff"

bash "$repository/scripts/fetch_archive.sh" "$archive" "$sha256" "$root" "split_csv/1cls.csv"
"$python" "$repository/visa.py" --root "$root"
