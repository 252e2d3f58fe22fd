"""Writes ``meta.json`` for VisA, or for your own data in its layout: ``python visa.py --root DIR``."""

import sys

from datasets.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["visa", *sys.argv[1:]]))
