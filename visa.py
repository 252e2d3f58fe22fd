"""Writes ``meta.json`` for VisA, or for your own data in its layout: ``python visa.py --root DIR``."""

import sys

from datasets.layout import run
from datasets.visa import list_visa

if __name__ == "__main__":
    sys.exit(run("VisA, or of your own data in its layout,", "data/visa", list_visa))
