"""Published results to compare a run with. They are other people's measurements."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from datasets.registry import DATA_SETS, PAPER_MEANS, with_published_tables
from winclip.support.errors import InputError

SOURCE = "Accurate-WinCLIP, README tables"
PAPER = "Jeong et al., CVPR 2023, means over 5 draws where few-shot"


def require_published(dataset: str) -> None:
    """Raises: InputError: if nothing was published for the data set."""
    known = with_published_tables()
    if dataset not in known:
        raise InputError(f"--compare: there are published tables for {' and '.join(known)}, none for '{dataset}'")


def published_table(dataset: str, k_shot: int) -> dict[str, dict[str, float]]:
    """Per-class figures in per cent of the reference reimplementation, by class and metric.

    Returns:
        An empty table if none was published for this data set and number of shots.
    """
    path = DATA_SETS[dataset].published if dataset in DATA_SETS else None
    return {} if path is None else {row["objects"]: _figures(row) for row in _rows(path, dataset, k_shot)}


def published_mean(table: dict[str, dict[str, float]], objects: Sequence[str], metric: str) -> float | None:
    """Mean of a published column over the classes of a run; the published mean itself if it ran all."""
    classes = set(table) - {"mean"}
    if classes == set(objects):
        return table["mean"].get(metric)
    values = [table[name][metric] for name in objects if name in classes and metric in table[name]]
    return sum(values) / len(values) if values and len(values) == len(objects) else None


def paper_mean(dataset: str, k_shot: int) -> dict[str, float]:
    """Means in per cent that the paper states, by metric; empty where it states none."""
    rows = _rows(PAPER_MEANS, dataset, k_shot)
    return _figures(rows[0]) if rows else {}


def _rows(path: Path, dataset: str, k_shot: int) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == dataset and int(row["k_shot"]) == k_shot]


def _figures(row: dict[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if key not in ("dataset", "k_shot", "objects") and value}
