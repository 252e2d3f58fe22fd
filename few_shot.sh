#!/usr/bin/env bash
# Tables for 1, 2, 4 and 8 shots in one pass of MVTec AD and VisA where they are in place, else of the embedded sample.
# Options are passed on to test.py; MVTEC_ROOT and VISA_ROOT name other folders of the data sets.
# NPROC says how many processes divide the images among them (one for every GPU).
exec bash "$(dirname "${BASH_SOURCE[0]}")/scripts/evaluate.sh" "1 2 4 8" "$@"
