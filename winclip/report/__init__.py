"""One self-contained HTML page of a run: tables, curves, and pictures in an order that their caller chooses."""
