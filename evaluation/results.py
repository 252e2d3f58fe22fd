"""The results of a run as rows, tables and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, TypeVar

from tabulate import tabulate

from datasets.items import Item
from evaluation.published import PAPER, SOURCE, paper_mean, published_mean, published_table
from evaluation.setting import Setting
from report.content import Table
from winclip.names import cell

if TYPE_CHECKING:
    # They bring torch, which tables do without.
    from evaluation.measuring import Measured
    from evaluation.references import References
    from evaluation.scoring import ClassScores

# The order of the published tables.
METRICS = ("auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp")


@dataclass
class Results:
    """Everything a run has computed so far.

    Attributes:
        dataset: its name.
        settings: in the order of the run.
        figures: per setting and class, the metrics that are defined, as fractions.
        scores: per setting, the test images and their scores.
        references: per setting, the reference images used.
    """

    dataset: str
    settings: list[Setting]
    figures: dict[Setting, dict[str, dict[str, float]]] = field(init=False)
    scores: dict[Setting, list[tuple[Item, float]]] = field(init=False)
    references: dict[Setting, list[Item]] = field(init=False)

    def __post_init__(self) -> None:
        self.figures = {setting: {} for setting in self.settings}
        self.scores = {setting: [] for setting in self.settings}
        self.references = {setting: [] for setting in self.settings}

    def add(self, scored: ClassScores, measured: Measured, references: References) -> None:
        """Take in a class in a setting."""
        setting = measured.setting
        self.figures[setting][scored.class_name] = measured.figures
        self.scores[setting] += zip(scored.items, scored.scores[setting].tolist())
        self.references[setting] += [references.items[position] for position in references.chosen[setting]]

    @property
    def classes(self) -> list[str]:
        """The classes that are finished."""
        return list(self.figures[self.settings[-1]])


Column = dict[str, float]
Part = TypeVar("Part")


def with_mean(classes: dict[str, Column]) -> dict[str, Column]:
    """The classes and, last, ``mean``: over the classes that have the figure."""
    mean: Column = {}
    for metric in METRICS:
        values = [column[metric] for column in classes.values() if metric in column]
        if values:
            mean[metric] = fmean(values)
    return {**classes, "mean": mean}


def over_seeds(tables: Sequence[dict[str, Column]]) -> tuple[dict[str, Column], dict[str, Column]]:
    """Mean and population standard deviation of every cell over the tables of several seeds.

    A cell that any table lacks is left out.
    """
    mean: dict[str, Column] = {}
    deviation: dict[str, Column] = {}
    for name in tables[0]:
        common = [metric for metric in METRICS if all(metric in table[name] for table in tables)]
        mean[name] = {metric: fmean(table[name][metric] for table in tables) for metric in common}
        deviation[name] = {metric: pstdev(table[name][metric] for table in tables) for metric in common}
    return mean, deviation


def _by_shots(results: Results) -> dict[int, list[Setting]]:
    groups: dict[int, list[Setting]] = {}
    for setting in results.settings:
        groups.setdefault(setting.k_shot, []).append(setting)
    return groups


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def results_csv(results: Results) -> str:
    """results.csv: per cent, six decimals, empty where undefined."""
    rows: list[list[object]] = []

    def add(k_shot: int, seed: str, table: dict[str, Column]) -> None:
        for name, column in table.items():
            cells = [f"{100 * column[metric]:.6f}" if metric in column else "" for metric in METRICS]
            rows.append([cell(results.dataset), k_shot, seed, cell(name), *cells])

    for k_shot, settings in _by_shots(results).items():
        tables = [with_mean(results.figures[setting]) for setting in settings]
        for setting, table in zip(settings, tables):
            add(k_shot, setting.seed_text, table)
        if len(settings) > 1:
            mean, deviation = over_seeds(tables)
            add(k_shot, "mean", mean)
            add(k_shot, "std", deviation)
    return _csv(["dataset", "k_shot", "seed", "objects", *METRICS], rows)


def scores_csv(results: Results) -> str:
    """scores.csv: one row per setting and image, nine significant digits."""
    rows = [
        [k, seed, *map(cell, (item.cls_name, item.specie_name, item.img_path)), item.anomaly, f"{score:.9g}"]
        for k, seed, scores in _by_setting(results.scores)
        for item, score in scores
    ]
    return _csv(["k_shot", "seed", "cls_name", "specie_name", "img_path", "anomaly", "score"], rows)


def k_shot_csv(results: Results) -> str:
    """k_shot.csv: the references of every setting."""
    rows = [
        [k, seed, cell(item.cls_name), cell(item.img_path)]
        for k, seed, items in _by_setting(results.references)
        for item in items
    ]
    return _csv(["k_shot", "seed", "cls_name", "img_path"], rows)


def _by_setting(parts: dict[Setting, list[Part]]) -> Iterator[tuple[int, str, list[Part]]]:
    for setting, part in parts.items():
        yield setting.k_shot, setting.seed_text, part


def tables(results: Results, compare: bool) -> list[Table]:
    """A table per number of shots, per cent with one decimal.

    With several seeds a cell is the mean over the seeds and the population standard deviation.
    """
    shown = []
    for k_shot, settings in _by_shots(results).items():
        mean, deviation = over_seeds([with_mean(results.figures[setting]) for setting in settings])
        title = f"{results.dataset}, {k_shot}-shot"
        if len(settings) > 1:
            title += f", mean ± standard deviation over seeds {', '.join(setting.seed_text for setting in settings)}"
        elif settings[0].seed is not None:
            title += f", seed {settings[0].seed}"
        *rows, last = (
            [name, *(_cell(mean[name], deviation[name] if len(settings) > 1 else {}, metric) for metric in METRICS)]
            for name in mean
        )
        header = ["objects", *METRICS]
        notes: list[str] = []
        if compare:
            header += [f"{metric} diff" for metric in METRICS]
            for row, differences in zip([*rows, last], _differences(results.dataset, k_shot, mean)):
                row += differences
            notes = _published_notes(results.dataset, k_shot)
        shown.append(Table(title, header, rows, last, notes))
    return shown


def markdown(tables: Iterable[Table]) -> str:
    """Tables under their titles, notes below them, as tables.md has them."""
    parts = []
    for table in tables:
        rows = [
            [text.replace("|", "\\|") for text in row]
            for row in [*table.rows, *([] if table.mean is None else [table.mean])]
        ]
        text = tabulate(rows, table.header, tablefmt="pipe", stralign="left", disable_numparse=True)
        notes = "".join(f"{note}\n" for note in table.notes)
        parts.append(f"## {table.title}\n\n{text}\n" + (f"\n{notes}" if notes else ""))
    return "\n".join(parts)


def _cell(mean: Column, deviation: Column, metric: str) -> str:
    if metric not in mean:
        return "-"
    spread = f" ± {100 * deviation[metric]:.1f}" if metric in deviation else ""
    return f"{100 * mean[metric]:.1f}{spread}"


def _differences(dataset: str, k_shot: int, table: dict[str, Column]) -> list[list[str]]:
    published = published_table(dataset, k_shot)
    objects = [name for name in table if name != "mean"]

    def difference(name: str, metric: str) -> str:
        value = table[name].get(metric)
        known = published.get(name, {}).get(metric)
        if name == "mean" and published:
            known = published_mean(published, objects, metric)
        return "-" if value is None or known is None else f"{100 * value - known:+.1f}"

    return [[difference(name, metric) for metric in METRICS] for name in table]


def _published_notes(dataset: str, k_shot: int) -> list[str]:
    notes = [f"diff: this run minus the published figure ({SOURCE})."]
    paper = paper_mean(dataset, k_shot)
    if paper:
        figures = ", ".join(f"{metric} {paper[metric]:.1f}" for metric in METRICS if metric in paper)
        notes.append(f"Means stated by the paper ({PAPER}): {figures}.")
    return notes
