"""Writes ``meta.json`` for MVTec AD, or for your own data in its layout: ``python mvtec.py --root DIR``."""

import sys

from datasets.command import run

if __name__ == "__main__":
    sys.exit(run("mvtec"))
