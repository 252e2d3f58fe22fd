"""Writes ``meta.json`` for VisA, or for your own data in its layout: ``python visa.py --root DIR``."""

import sys

from datasets.command import run

if __name__ == "__main__":
    sys.exit(run("visa"))
