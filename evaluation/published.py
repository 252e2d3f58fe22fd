"""Published results to compare a run with. They are other people's measurements."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from winclip.errors import InputError

_FOLDER = Path(__file__).parent / "published"
SOURCE = "Accurate-WinCLIP, README tables"
PAPER = "Jeong et al., CVPR 2023, means over 5 draws where few-shot"


def published_table(dataset: str, k_shot: int) -> dict[str, dict[str, float]]:
    """Per-class figures in per cent of the reference reimplementation, by class and metric.

    Returns:
        An empty table if none was published for this number of shots.

    Raises:
        InputError: if nothing was published for the data set.
    """
    rows = _rows("accurate_winclip.csv")
    if dataset not in {row["dataset"] for row in rows}:
        raise InputError(f"--compare: there are published tables for mvtec and visa, none for '{dataset}'")
    chosen = [row for row in rows if row["dataset"] == dataset and int(row["k_shot"]) == k_shot]
    return {row["objects"]: _figures(row) for row in chosen}


def published_mean(table: dict[str, dict[str, float]], objects: Sequence[str], metric: str) -> float | None:
    """Mean of a published column over the classes of a run; the published mean itself if it ran all."""
    classes = set(table) - {"mean"}
    if classes == set(objects):
        return table["mean"].get(metric)
    values = [table[name][metric] for name in objects if name in classes]
    return sum(values) / len(values) if values and len(values) == len(objects) else None


def paper_mean(dataset: str, k_shot: int) -> dict[str, float]:
    """Means in per cent that the paper states, by metric; empty where it states none."""
    for row in _rows("paper_means.csv"):
        if row["dataset"] == dataset and int(row["k_shot"]) == k_shot:
            return _figures(row)
    return {}


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _figures(row: dict[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if key not in ("dataset", "k_shot", "objects") and value}
