"""One self-contained HTML page of a run: tables, curves, and pictures in the caller's order."""
