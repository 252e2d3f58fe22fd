"""Writes ``meta.json`` for MVTec AD, or for your own data in its layout: ``python mvtec.py --root DIR``."""

import sys

from datasets.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["mvtec", *sys.argv[1:]]))
