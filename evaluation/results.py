"""The results of a run as rows, tables and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tabulate import tabulate

from datasets.items import Item
from evaluation.options import Setting
from evaluation.published import SOURCE, STATED, published_mean, published_table, stated_means
from winclip.metrics.bootstrap import RESAMPLES, Interval, interval
from winclip.metrics.formulas import METRICS as METRICS
from winclip.metrics.formulas import TYPE_METRICS as TYPE_METRICS
from winclip.metrics.formulas import Float64, chance
from winclip.report.content import Table
from winclip.support.names import cell, csv_line
from winclip.variants import REFERENCE

if TYPE_CHECKING:
    # They import torch, which tables do not need.
    from evaluation.measuring import ClassMetrics
    from evaluation.parts import ClassScores
    from evaluation.references import References

INTERVALS_NOTE = f"[low, high]: 95 % bootstrap interval over images, {RESAMPLES:,} resamples."
CHANCE_MARK = "†"
CHANCE_NOTE = f"{CHANCE_MARK}: cannot be told from guessing, whose figure (for a class, its own) is in the interval."

Column = dict[str, float]
Part = TypeVar("Part")
Key = TypeVar("Key")


@dataclass
class Results:
    """Everything a run has computed so far.

    Attributes:
        dataset: its name.
        settings: in the order of the run.
        figures: per setting and class, the metrics that are defined, as fractions.
        types: per setting, by class and type of defect, its metrics that are defined.
        resampled: per setting and class, each figure's values in resamples, see ``ClassMetrics``.
        scores: per setting, the test images and their scores.
        references: per setting, the reference images used.
        chance: per class, the figures of guessing.
        metrics: the ones that tables show.
    """

    dataset: str
    settings: list[Setting]
    metrics: Sequence[str] = METRICS
    figures: dict[Setting, dict[str, dict[str, float]]] = field(init=False)
    types: dict[Setting, dict[tuple[str, str], Column]] = field(init=False)
    resampled: dict[Setting, dict[str, dict[str, Float64]]] = field(init=False)
    scores: dict[Setting, list[tuple[Item, float]]] = field(init=False)
    references: dict[Setting, list[Item]] = field(init=False)
    chance: dict[str, Column] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.figures = {setting: {} for setting in self.settings}
        self.types = {setting: {} for setting in self.settings}
        self.resampled = {setting: {} for setting in self.settings}
        self.scores = {setting: [] for setting in self.settings}
        self.references = {setting: [] for setting in self.settings}

    def add(self, scored: ClassScores, measured: ClassMetrics, references: References) -> None:
        """Add a class in a setting."""
        setting = measured.setting
        self.figures[setting][scored.class_name] = measured.figures
        self.types[setting] |= {(scored.class_name, name): column for name, column in measured.types.items()}
        self.resampled[setting][scored.class_name] = measured.resampled
        self.scores[setting] += zip(scored.items, scored.scores[setting].tolist())
        self.references[setting] += [references.items[position] for position in references.chosen[setting]]
        of_pixels = {} if isinstance(measured.defects, str) else chance("pixel", measured.defects.mask)
        self.chance[scored.class_name] = of_pixels | chance("image", scored.labels)

    @property
    def variants(self) -> bool:
        """Whether files name the variant, as they do if any is not the reference."""
        return any(setting.variant != REFERENCE.name for setting in self.settings)

    @property
    def classes(self) -> list[str]:
        """The classes that are finished."""
        return list(self.figures[self.settings[-1]])


def with_mean(classes: dict[str, Column]) -> dict[str, Column]:
    """The classes and, last, ``mean``: over the classes that have the figure."""
    mean: Column = {}
    for metric in METRICS:
        values = [column[metric] for column in classes.values() if metric in column]
        if values:
            mean[metric] = fmean(values)
    return {**classes, "mean": mean}


def over_seeds(tables: Sequence[dict[Key, Column]]) -> tuple[dict[Key, Column], dict[Key, Column]]:
    """Mean and population standard deviation of every cell over the tables of several seeds.

    A cell that any table lacks is left out.
    """
    mean: dict[Key, Column] = {}
    deviation: dict[Key, Column] = {}
    for name in tables[0]:
        common = [metric for metric in METRICS if all(metric in table[name] for table in tables)]
        mean[name] = {metric: fmean(table[name][metric] for table in tables) for metric in common}
        # Exact fractions take most of the time of writing tables.
        several = len(tables) > 1
        deviation[name] = {m: pstdev(table[name][m] for table in tables) if several else 0.0 for m in common}
    return mean, deviation


def intervals(results: Results, settings: Sequence[Setting]) -> dict[str, dict[str, Interval]]:
    """Per class and of their mean, the intervals of the figures' means over some settings.

    Resample for resample, figures are averaged as the tables average them: over the classes, then over
    the settings. A figure that is not known has no interval, nor has any without resampling.
    """
    tables = []
    for setting in settings:
        classes = results.resampled[setting]
        tables.append({**classes, "mean": averaged(list(classes.values()), any)})
    found: dict[str, dict[str, Interval]] = {}
    for name in tables[0]:
        limits = {metric: interval(part) for metric, part in averaged([t[name] for t in tables], all).items()}
        found[name] = {metric: both for metric, both in limits.items() if both is not None}
    return found


def averaged(columns: Sequence[dict[str, Float64]], required: Callable[[Iterable[bool]], bool]) -> dict[str, Float64]:
    """Averages over the columns that have the metric, of those metrics that any or all of them have."""
    return {
        metric: np.mean([column[metric] for column in columns if metric in column], axis=0)
        for metric in METRICS
        if required(metric in column for column in columns)
    }


def by_shots(results: Results) -> dict[Setting, list[Setting]]:
    """The settings of each variant and number of shots, keyed by one without a seed."""
    groups: dict[Setting, list[Setting]] = {}
    for setting in results.settings:
        groups.setdefault(replace(setting, seed=None), []).append(setting)
    return groups


def _csv_of_settings(results: Results, header: Sequence[str], rows: Iterable[tuple[Setting, Sequence[Any]]]) -> str:
    """CSV of rows with their settings; the variant comes first if the run has variants."""
    if not results.variants:
        return csv_text(header, (row for _, row in rows))
    return csv_text(["variant", *header], ([cell(setting.variant), *row] for setting, row in rows))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Header and rows as CSV."""
    return "".join(map(csv_line, [header, *rows]))


def results_csv(results: Results) -> str:
    """results.csv: per cent, six decimals, empty where undefined."""
    tables = {setting: with_mean(classes) for setting, classes in results.figures.items()}
    rows = [
        (shots, [cell(results.dataset), shots.k_shot, seed, cell(name), *_per_cent(column, METRICS)])
        for shots, seed, table in _with_seeds_joined(results, tables)
        for name, column in table.items()
    ]
    return _csv_of_settings(results, ["dataset", "k_shot", "seed", "objects", *METRICS], rows)


def types_csv(results: Results) -> str:
    """types.csv: each type of defect against the good images of its class, like results.csv."""
    counts = type_counts(results)
    rows = []
    for shots, seed, table in _with_seeds_joined(results, results.types):
        for (name, kind), column in table.items():
            lead = [cell(results.dataset), shots.k_shot, seed, cell(name), cell(kind)]
            rows.append((shots, [*lead, *_per_cent(column, TYPE_METRICS), *counts[name, kind]]))
    header = ["dataset", "k_shot", "seed", "objects", "specie_name", *TYPE_METRICS, "images", "good_images"]
    return _csv_of_settings(results, header, rows)


def type_counts(results: Results) -> dict[tuple[str, str], tuple[int, int]]:
    """By class and type of defect, the numbers of its images and of the class's good images."""
    items = [item for item, _ in results.scores[results.settings[0]]]
    good = Counter(item.cls_name for item in items if not item.anomaly)
    bad = Counter((item.cls_name, item.specie_name) for item in items if item.anomaly)
    return {(name, kind): (count, good[name]) for (name, kind), count in bad.items()}


def _per_cent(column: Column, metrics: Sequence[str]) -> list[str]:
    return [f"{100 * column[metric]:.6f}" if metric in column else "" for metric in metrics]


def _with_seeds_joined(
    results: Results, tables: Mapping[Setting, dict[Key, Column]]
) -> Iterator[tuple[Setting, str, dict[Key, Column]]]:
    """Variant with shots, seed and table of every setting; after several seeds also their ``mean`` and ``std``."""
    for shots, settings in by_shots(results).items():
        for setting in settings:
            yield shots, setting.seed_text, tables[setting]
        if len(settings) > 1:
            yield from zip((shots, shots), ("mean", "std"), over_seeds([tables[setting] for setting in settings]))


def intervals_csv(results: Results) -> str:
    """intervals.csv: ends of the 95 % intervals, per cent, six decimals, empty where unknown."""
    rows: list[tuple[Setting, list[object]]] = []

    def add(shots: Setting, seed: str, settings: Sequence[Setting]) -> None:
        for name, column in intervals(results, settings).items():
            ends = [column.get(metric, ("", "")) for metric in METRICS]
            cells = [end if end == "" else f"{100 * end:.6f}" for both in ends for end in both]
            rows.append((shots, [cell(results.dataset), shots.k_shot, seed, cell(name), *cells]))

    for shots, settings in by_shots(results).items():
        for setting in settings:
            add(shots, setting.seed_text, [setting])
        if len(settings) > 1:
            add(shots, "mean", settings)
    ends = [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
    return _csv_of_settings(results, ["dataset", "k_shot", "seed", "objects", *ends], rows)


def scores_csv(results: Results) -> str:
    """scores.csv: one row per setting and image, nine significant digits."""
    rows = [
        (setting, [*lead, *map(cell, (item.cls_name, item.specie_name, item.img_path)), item.anomaly, f"{score:.9g}"])
        for setting, lead, scores in _by_setting(results.scores)
        for item, score in scores
    ]
    return _csv_of_settings(
        results, ["k_shot", "seed", "cls_name", "specie_name", "img_path", "anomaly", "score"], rows
    )


def k_shot_csv(results: Results) -> str:
    """k_shot.csv: the references of every setting."""
    rows = [
        (setting, [*lead, cell(item.cls_name), cell(item.img_path)])
        for setting, lead, items in _by_setting(results.references)
        for item in items
    ]
    return _csv_of_settings(results, ["k_shot", "seed", "cls_name", "img_path"], rows)


def _by_setting(parts: dict[Setting, list[Part]]) -> Iterator[tuple[Setting, tuple[int, str], list[Part]]]:
    for setting, part in parts.items():
        yield setting, (setting.k_shot, setting.seed_text), part


def tables(results: Results, compare: bool) -> list[Table]:
    """A table per number of shots, per cent with one decimal.

    With several seeds a cell is the mean over the seeds and the population standard deviation. Where
    images were resampled, the interval follows, and ``CHANCE_MARK`` if it holds the figure of guessing.
    """
    shown = []
    guessed = with_mean(results.chance)
    metrics = results.metrics
    for shots, settings in by_shots(results).items():
        mean, deviation = over_seeds([with_mean(results.figures[setting]) for setting in settings])
        reference = f"{REFERENCE.name}, " if results.variants and shots.variant == REFERENCE.name else ""
        title = f"{results.dataset}, {reference}{shots.shots}"
        if len(settings) > 1:
            title += f", mean ± standard deviation over seeds {', '.join(setting.seed_text for setting in settings)}"
        elif settings[0].seed is not None:
            title += f", seed {settings[0].seed}"
        std = deviation if len(settings) > 1 else {name: {} for name in mean}
        limits = intervals(results, settings)
        *rows, last = (
            [name, *(_cell(mean[name], std[name], limits[name], guessed[name], metric) for metric in metrics)]
            for name in mean
        )
        by_chance = ["chance", *(figure_text(guessed["mean"], {}, metric) for metric in metrics)]
        header = ["objects", *metrics]
        notes = mean_notes(mean) + ([INTERVALS_NOTE] if any(limits.values()) else [])
        if compare:
            header += [f"{metric} diff" for metric in metrics]
            for row, differences in zip([*rows, last], _differences(results.dataset, shots.k_shot, mean, metrics)):
                row += differences
            by_chance += ["-"] * len(metrics)
            notes += _published_notes(results.dataset, shots.k_shot)
        if any(CHANCE_MARK in text for row in [*rows, last] for text in row[1:]):
            notes.append(CHANCE_NOTE)
        shown.append(Table(title, header, rows, last, notes, chance=by_chance))
    return shown


def rows_of_class(results: Results, name: str) -> Iterator[str]:
    """The rows of a class in the first variant, shown while other classes are scored."""
    for shots, settings in by_shots(results).items():
        if shots.variant == results.settings[0].variant:
            mean, _ = over_seeds([{name: results.figures[setting][name]} for setting in settings])
            figures = ", ".join(f"{metric} {figure_text(mean[name], {}, metric)}" for metric in results.metrics)
            yield f"{name}, {shots.shots}: {figures}"


def mean_notes(table: dict[str, Column]) -> list[str]:
    """Which means leave out classes that lack the figure."""
    classes = [column for name, column in table.items() if name != "mean"]
    metrics: dict[int, list[str]] = {}
    for metric in METRICS:
        metrics.setdefault(sum(metric in column for column in classes), []).append(metric)
    return [
        f"{', '.join(names)}: mean of {count} of {len(classes)} classes."
        for count, names in metrics.items()
        if 0 < count < len(classes)
    ]


def markdown(tables: Iterable[Table]) -> str:
    """Tables under their titles, notes below them, as tables.md has them."""
    parts = []
    for table in tables:
        rows = [
            [text.replace("|", "\\|") for text in row]
            for row in [*table.rows, *filter(None, [table.mean, table.chance])]
        ]
        text = tabulate(rows, table.header, tablefmt="pipe", stralign="left", disable_numparse=True)
        notes = "".join(f"{note}\n" for note in table.notes)
        parts.append(f"## {table.title}\n\n{text}\n" + (f"\n{notes}" if notes else ""))
    return "\n".join(parts)


def _cell(mean: Column, deviation: Column, limits: Mapping[str, Interval], guessed: Column, metric: str) -> str:
    both = limits.get(metric) if metric in mean else None
    # Rounding may move an end that equals the figure of guessing, as it often does for F1.
    known = both is not None and metric in guessed and both[0] - 1e-9 <= guessed[metric] <= both[1] + 1e-9
    return figure_text(mean, deviation, metric) + interval_text(both) + (CHANCE_MARK if known else "")


def figure_text(mean: Column, deviation: Column, metric: str) -> str:
    """A figure, per cent, with its deviation over seeds if that has one: ``91.4 ± 0.3``; ``-`` if it is undefined."""
    if metric not in mean:
        return "-"
    return f"{100 * mean[metric]:.1f}" + (f" ± {100 * deviation[metric]:.1f}" if metric in deviation else "")


def interval_text(limits: Interval | None, sign: str = "") -> str:
    """An interval as it follows its figure, per cent: `` [89.8, 92.9]``; empty if there is none."""
    return "" if limits is None else f" [{100 * limits[0]:{sign}.1f}, {100 * limits[1]:{sign}.1f}]"


def _differences(dataset: str, k_shot: int, table: dict[str, Column], metrics: Sequence[str]) -> list[list[str]]:
    published = published_table(dataset, k_shot)
    objects = [name for name in table if name != "mean"]

    def difference(name: str, metric: str) -> str:
        value = table[name].get(metric)
        known = published.get(name, {}).get(metric)
        if name == "mean" and published:
            known = published_mean(published, objects, metric)
        return "-" if value is None or known is None else f"{100 * value - known:+.1f}"

    return [[difference(name, metric) for metric in metrics] for name in table]


def _published_notes(dataset: str, k_shot: int) -> list[str]:
    notes = [f"diff: this run minus the published figure ({SOURCE})."]
    for name, means in stated_means(dataset, k_shot).items():
        figures = ", ".join(f"{metric} {means[metric]:.1f}" for metric in METRICS if metric in means)
        notes.append(f"Means stated by {'the paper' if name == 'paper' else name} ({STATED[name]}): {figures}.")
    return notes
