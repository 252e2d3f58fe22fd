#!/usr/bin/env bash
# Zero-shot tables of MVTec AD and VisA where they are in place, else of the embedded sample.
# Options are passed on to test.py; MVTEC_ROOT and VISA_ROOT name other folders of the data sets.
# NPROC says how many processes divide the images among them (one for every GPU).
exec bash "$(dirname "${BASH_SOURCE[0]}")/scripts/evaluate.sh" "0" "$@"
