#!/usr/bin/env bash
# Compare with anomalib and adeval in one run, in an environment of its own (.venv-peers).
# Arguments go on to benchmark_peers.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ ! -f .venv-peers/installed ]; then
    python3 -m venv .venv-peers
    # adeval calls numpy.trapz, which numpy 2.4 removed; anomalib pins open_clip below 2.26.1.
    .venv-peers/bin/python -m pip install --quiet "anomalib[clip]==2.7.0" ADEval==1.1.0 "numpy<2.4" \
        scikit-learn scikit-image scipy tabulate tqdm
    touch .venv-peers/installed
fi
exec .venv-peers/bin/python -m scripts.benchmark_peers "$@"
