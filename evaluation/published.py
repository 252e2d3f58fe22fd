"""Published results to compare a run with. They are other people's measurements."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from datasets.registry import DATA_SETS, STATED_MEANS, with_published_tables
from winclip.support.errors import InputError

SOURCE = "Accurate-WinCLIP, README tables"
# The sources of published means.
STATED = {
    "paper": "Jeong et al., CVPR 2023, means over 5 draws where few-shot; zero-shot F1 as caoyunkang/WinClip quotes it",
    "caoyunkang": "README of caoyunkang/WinClip",
}


def require_published(dataset: str) -> None:
    """Raises: InputError: if nothing was published for the data set."""
    known = with_published_tables()
    if dataset not in known:
        raise InputError(f"--compare: there are published tables for {' and '.join(known)}, none for '{dataset}'")


def published_table(dataset: str, k_shot: int) -> dict[str, dict[str, float]]:
    """Figures of the reference reimplementation in per cent, by class and metric.

    Returns:
        An empty table if none was published for this data set and number of shots.
    """
    path = DATA_SETS[dataset].published if dataset in DATA_SETS else None
    return {} if path is None else _figures(path, dataset, k_shot)


def published_mean(table: dict[str, dict[str, float]], objects: Sequence[str], metric: str) -> float | None:
    """Mean of a published column over the classes of a run; the published mean itself if the run has all classes."""
    if {*objects, "mean"} == table.keys():
        return table["mean"].get(metric)
    values = [table[name][metric] for name in objects if metric in table.get(name, {})]
    return sum(values) / len(values) if values and len(values) == len(objects) else None


def stated_means(dataset: str, k_shot: int) -> dict[str, dict[str, float]]:
    """Published means in per cent, by source and metric; a source without any is left out."""
    found = {name: _figures(path, dataset, k_shot) for name, path in STATED_MEANS.items()}
    return {name: table["mean"] for name, table in found.items() if table}


def _figures(path: Path, dataset: str, k_shot: int) -> dict[str, dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == dataset and int(row["k_shot"]) == k_shot]
    keys = ("dataset", "k_shot", "objects")
    return {row.get("objects", "mean"): {m: float(row[m]) for m in row if m not in keys and row[m]} for row in rows}
