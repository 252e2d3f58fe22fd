#!/usr/bin/env bash
# Evaluate every data set that is in place, or the embedded sample; zero_shot.sh and few_shot.sh call this.
# NPROC processes share the work, by default one for every GPU unless --device names one; see docs/scale.md.
# usage: evaluate.sh "SHOTS" [OPTION ...]   options go on to test.py; --save_path names the folder of all data sets
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
read -r -a shots <<<"$1"
shift

save_path="$root/results"
options=()
device=
while [ $# -gt 0 ]; do
    case "$1" in
    --save_path)
        save_path="${2:?--save_path needs a folder}"
        shift
        ;;
    --save_path=*) save_path="${1#*=}" ;;
    *)
        options+=("$1")
        case "$1" in --device | --device=*) device=given ;; esac
        ;;
    esac
    shift
done

# Use the active environment if "setup.sh --here" has installed into it.
environment="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" here=--here
if [ -z "$environment" ] || [ ! -f "$environment/winclip-installed-plain" ]; then
    environment="$root/.venv" here=
fi
bash "$root/scripts/setup.sh" $here
python="$environment/bin/python"

if [ -z "${NPROC:-}" ] && [ -z "$device" ] && command -v nvidia-smi >/dev/null; then
    NPROC="$("$python" -c "import torch; print(max(1, torch.cuda.device_count()))")"
fi
case "${NPROC:=1}" in
*[!0-9]* | 0*)
    echo "error: NPROC is '$NPROC', which is not a number of processes; leave it out, or give 1 or more" >&2
    exit 2
    ;;
esac
start=("$python")
[ "$NPROC" = 1 ] || start=("$environment/bin/torchrun" --standalone --nproc_per_node "$NPROC")

module() { # NAME [ARGUMENT ...]: a module of the repository, found whatever the current folder holds
    (cd "$root" && "$python" -m "$@")
}

evaluate() { # NAME ROOT "LISTER AND ITS OPTIONS" [OPTION ...]: write meta.json where it is missing, then run test.py
    local name="$1" data="$2" lister
    read -r -a lister <<<"$3"
    shift 3
    [ -f "$data/meta.json" ] || module datasets "${lister[@]}" --root "$data" || return
    "${start[@]}" "$root/test.py" --dataset "$name" --data_path "$data" --save_path "$save_path/$name" \
        --k_shot "${shots[@]}" "$@" ${options[@]+"${options[@]}"}
}

found=0
status=0
names="$(module datasets --names)"
for name in $names; do
    variable="$(echo "$name" | tr '[:lower:]' '[:upper:]')_ROOT"
    data="${!variable:-$root/data/$name}"
    if [ -d "$data" ]; then
        found=1
        data="$(cd "$data" && pwd)"
        evaluate "$name" "$data" "$name" || status=$?
    elif [ -n "${!variable:-}" ]; then
        echo "error: $variable is '$data', which is not a folder" >&2
        exit 2
    fi
done

if [ "$found" = 0 ]; then
    echo "None of the data sets ${names//$'\n'/, } is in $root/data (MVTEC_ROOT and the like name other places)." >&2
    echo "Running the embedded sample with the embedded demo backbone: drawn images and a small network" >&2
    echo "trained on drawn images. Its figures show that everything works; they measure no real data set." >&2
    module winclip.demo.sample --data_path "$root/data/sample"
    evaluate sample "$root/data/sample" "mvtec --all_classes" --model demo-vit-240 || status=$?
fi
exit "$status"
