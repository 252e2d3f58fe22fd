#!/usr/bin/env bash
# Evaluate every data set that is in place, or the embedded sample; zero_shot.sh and few_shot.sh call this.
# usage: evaluate.sh "SHOTS" [OPTION ...]   options go on to test.py; --save_path names the folder of all data sets
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
read -r -a shots <<<"$1"
shift

save_path="$root/results"
options=()
while [ $# -gt 0 ]; do
    case "$1" in
    --save_path)
        save_path="${2:?--save_path needs a folder}"
        shift
        ;;
    --save_path=*) save_path="${1#*=}" ;;
    *) options+=("$1") ;;
    esac
    shift
done

bash "$root/scripts/setup.sh"
python="$root/.venv/bin/python"

evaluate() { # NAME ROOT SCRIPT [OPTION ...]: write meta.json where it is missing, then run test.py
    local name="$1" data="$2" script="$3"
    shift 3
    [ -f "$data/meta.json" ] || "$python" "$root/$script" --root "$data" ${META_OPTIONS:-} || return
    "$python" "$root/test.py" --dataset "$name" --data_path "$data" --save_path "$save_path/$name" \
        --k_shot "${shots[@]}" "$@" ${options[@]+"${options[@]}"}
}

found=0
status=0
for name in mvtec visa; do
    variable="$(echo "$name" | tr '[:lower:]' '[:upper:]')_ROOT"
    data="${!variable:-$root/data/$name}"
    if [ -d "$data" ]; then
        found=1
        evaluate "$name" "$data" "$name.py" || status=$?
    elif [ -n "${!variable:-}" ]; then
        echo "error: $variable is '$data', which is no folder" >&2
        exit 2
    fi
done

if [ "$found" = 0 ]; then
    echo "Neither $root/data/mvtec nor $root/data/visa is there (MVTEC_ROOT and VISA_ROOT name other places)." >&2
    echo "Running the embedded sample with the embedded demo backbone: drawn images and a small network" >&2
    echo "trained on drawn images. Its figures show that everything works; they measure no real data set." >&2
    "$python" "$root/scripts/make_sample.py" --root "$root/data/sample"
    META_OPTIONS=--all_classes evaluate sample "$root/data/sample" mvtec.py --model demo-vit-240 || status=$?
fi
exit "$status"
