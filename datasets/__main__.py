"""Writes ``meta.json`` for a data set: ``python -m datasets NAME --root DIR``; ``--names`` lists those with tables."""

from __future__ import annotations

import sys

from datasets.command import run
from datasets.registry import DATA_SETS, with_published_tables


def main(words: list[str]) -> int:
    """Run the command line and return the exit status."""
    usage = "usage: python -m datasets NAME [--root DIR] ...\n       python -m datasets --names"
    name = words[0] if words else ""
    if name in DATA_SETS:
        return run(name, words[1:])
    if name in ("-h", "--help"):
        print(usage, *(f"  {entry.name:<14}{entry.title}" for entry in DATA_SETS.values()), sep="\n")
        return 0
    if name == "--names":
        print("\n".join(with_published_tables()))
        return 0
    print(f"{usage}\nerror: no data set is called {name!r}; name one of {', '.join(DATA_SETS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
