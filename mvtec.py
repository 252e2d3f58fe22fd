"""Writes ``meta.json`` for MVTec AD, or for your own data in its layout: ``python mvtec.py --root DIR``."""

import sys

from datasets.layout import run
from datasets.mvtec import list_mvtec

if __name__ == "__main__":
    sys.exit(run("MVTec AD, or of your own data in its layout,", "data/mvtec", list_mvtec))
