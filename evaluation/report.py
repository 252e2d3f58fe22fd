"""The report of a run: the curves, and every test image with its result in each setting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from datasets.samples import read_mask
from evaluation.measuring import ClassMetrics
from evaluation.options import Setting
from evaluation.parts import ClassScores
from evaluation.results import (
    METRICS,
    TYPE_METRICS,
    Results,
    by_shots,
    figure_text,
    interval_text,
    over_seeds,
    type_counts,
    with_mean,
)
from winclip.metrics.bootstrap import interval
from winclip.metrics.formulas import REGISTRY
from winclip.pictures.images import read_image
from winclip.pictures.intake import Intake
from winclip.report.content import Card, Growth, Report, Result, SettingPage, Table, Wording
from winclip.report.curves import ClassCurves, measure_class
from winclip.report.page import LARGEST, LARGEST_HEAT, LONGEST_OUTLINE, heat_picture
from winclip.support.names import counted

# Limit of the page's pictures in bytes; beyond it, only the worst test images of each class are shown.
PAGE_BYTES = 40_000_000

_WORDS = Wording(
    good="good",
    bad="defective",
    panels="Curves",
    outcome="Right or wrong",
    order="worst first",
    tables="Per cent. A click on a column's name sorts by it. "
    + "; ".join(f"{metric.name}: {metric.meaning}" for metric in REGISTRY)
    + "; row chance: what guessing gives on these images.",
)
_NOTES = (
    "Scores above the threshold count as defective. Each class has the threshold with the best F1 on these very images,"
    " so right and wrong are counted optimistically.",
    "The worst come first: the wrong ones by their distance from the threshold, then the right ones nearest to it. Heat"
    " maps have one colour scale for the whole page, from 0 to 1; higher values are drawn as 1.",
)


class RunPictures:
    """What the report needs from a run: curves and grid maps, from the first seed of every number of shots."""

    def __init__(self, root: Path, settings: list[Setting], upright: bool = False, white: int | None = None) -> None:
        first_seeds: dict[str, Setting] = {}
        for setting in settings:
            first_seeds.setdefault(setting.shots, setting)
        self._settings = sorted(first_seeds.values(), key=lambda setting: setting.k_shot)
        self._all_shown = len(self._settings) == len(settings)
        self._root, self._upright, self._intake = root, upright, Intake(white)
        self._curves: dict[Setting, list[ClassCurves]] = {setting: [] for setting in self._settings}
        self._classes: dict[str, ClassScores] = {}

    def add(self, name: str, scored: ClassScores, measured: ClassMetrics) -> None:
        """Take the curves of a class in a setting and keep its small maps; settings not shown are ignored."""
        setting = measured.setting
        if setting not in self._curves:
            return
        labels = [item.anomaly for item in scored.items]
        figures = {
            metric: f"{100 * value:.1f}"
            + (interval_text(interval(measured.resampled[metric])) if measured.resampled else "")
            for metric, value in measured.figures.items()
        }
        self._curves[setting].append(measure_class(name, labels, scored.scores[setting], measured.pixels, figures))
        kept = self._classes.setdefault(name, ClassScores(scored.items, [], {}, {}))
        kept.scores[setting], kept.maps[setting] = scored.scores[setting], scored.maps[setting]

    def report(self, title: str, tables: Sequence[Table], facts: Sequence[tuple[str, str]], results: Results) -> Report:
        """The page's content; images and masks are read one after the other.

        Args:
            title: heading of the page.
            tables: figures of the run.
            facts: names and values shown under the title.
            results: the same figures, and the figures by type of defect.
        """
        notes = [*_NOTES]
        if not self._all_shown:
            notes.append("Curves and pictures are those of the first seed; the rest covers all seeds.")
        counts = [len(scored.items) for scored in self._classes.values()]
        if max(counts) > self._most:
            shown = sum(min(count, self._most) for count in counts)
            notes.append(
                f"{shown} of {sum(counts)} pictures are shown, to keep the page below {PAGE_BYTES // 1_000_000} MB:"
                f" of every class the {self._most} worst by {self._settings[-1].name}; tables and curves cover all."
            )
        pages = [SettingPage(setting.name, self._curves[setting]) for setting in self._settings]
        types = types_table(results)
        every = [*tables, *([] if types is None else [types])]
        return Report(title, pages, _WORDS, self._cards(), facts, every, notes, growth=growth(results))

    @property
    def _most(self) -> int:
        """How many pictures of a class are shown."""
        largest = LARGEST + LONGEST_OUTLINE + LARGEST_HEAT * len(self._settings)
        return max(1, PAGE_BYTES // largest // len(self._classes))

    def _cards(self) -> Iterator[Card]:
        for number, (name, scored) in enumerate(self._classes.items()):
            thresholds = {setting: self._curves[setting][number].threshold for setting in self._settings}
            last = self._settings[-1]
            ranks = [
                rank(item.anomaly, float(score), thresholds[last])
                for item, score in zip(scored.items, scored.scores[last])
            ]
            worst = sorted(range(len(ranks)), key=lambda position: ranks[position])[: self._most]
            for position in sorted(worst):
                item = scored.items[position]
                image = read_image(self._root / item.img_path, upright=self._upright, intake=self._intake)
                results = [
                    judge(
                        item.anomaly,
                        float(scored.scores[setting][position]),
                        thresholds[setting],
                        heat_picture(scored.maps[setting][position].numpy(), image.size),
                    )
                    for setting in self._settings
                ]
                mask = (
                    read_mask(self._root / item.mask_path, self._upright) if item.anomaly and item.mask_path else None
                )
                yield Card(item.img_path, image, name, item.specie_name, item.anomaly, mask, results)


def types_table(results: Results) -> Table | None:
    """Image AUROC and AUPRO of each type of defect with every number of shots, hardest first; None without types."""
    groups = dict(sorted(by_shots(results).items(), key=lambda group: group[0].k_shot))
    tables = {shots: over_seeds([results.types[s] for s in settings]) for shots, settings in groups.items()}
    last, counts = [*tables][-1], type_counts(results)

    def hardness(key: tuple[str, str]) -> list[float]:
        return [tables[last][0][key].get(metric, math.inf) for metric in TYPE_METRICS]

    def figure(shots: Setting, key: tuple[str, str], metric: str) -> str:
        (mean, deviation), several = tables[shots], len(groups[shots]) > 1
        return figure_text(mean[key], deviation[key] if several else {}, metric)

    columns = [(metric, shots) for metric in TYPE_METRICS for shots in tables]
    rows = [
        [
            " · ".join(filter(None, key)),
            str(counts[key][0]),
            *(figure(shots, key, metric) for metric, shots in columns),
        ]
        for key in sorted(tables[last][0], key=hardness)
    ]
    if not rows:
        return None
    note = (
        "Images of each type against the good images of their class alone; the type with the lowest image AUROC with"
        f" {counted(last.k_shot, 'reference')} comes first. Guessing gives an image AUROC of 50."
    )
    header = ["type of defect", "images", *(f"{metric} {shots.shots}" for metric, shots in columns)]
    return Table("Types of defects, the hardest first", header, rows, notes=[note], bars=True)


def growth(results: Results) -> list[Growth]:
    """Each figure of the mean and of every class over the first variant's numbers of shots; empty if it has one."""
    of_first = {
        shots.k_shot: of for shots, of in by_shots(results).items() if shots.variant == results.settings[0].variant
    }
    groups = sorted(of_first.items())
    if len(groups) < 2:
        return []
    tables = [over_seeds([with_mean(results.figures[setting]) for setting in settings]) for _, settings in groups]

    def figures(name: str, metric: str) -> list[tuple[float, float] | None]:
        return [
            (100 * mean[name][metric], 100 * deviation[name][metric]) if metric in mean[name] else None
            for mean, deviation in tables
        ]

    return [
        Growth(name, [k for k, _ in groups], {metric: figures(name, metric) for metric in METRICS})
        for name in ("mean", *results.classes)
    ]


def rank(label: int, score: float, threshold: float | None) -> tuple[float, float]:
    """The place of an image in the gallery, the smallest first; arguments as for ``judge``.

    Wrong ones come first, the farthest from their threshold leading; then right ones, the nearest leading.
    Images without threshold or score are last, the highest scores leading.
    """
    if threshold is None or not math.isfinite(score):
        return 2.0, -score if math.isfinite(score) else math.inf
    wrong_by = (score - threshold) * (-1 if label == 1 else 1)
    return float((score > threshold) == (label == 1)), -wrong_by


def judge(label: int, score: float, threshold: float | None, heat_map: Image.Image) -> Result:
    """Compare a score with the label of its image.

    Args:
        label: 1 for defective, 0 for good.
        score: a score above the threshold counts as defective.
        threshold: None if there is none.
        heat_map: of the image.
    """
    if threshold is None or not math.isfinite(score):
        outcome = "no threshold" if threshold is None else "no score"
    else:
        right = (score > threshold) == (label == 1)
        outcome = "right" if right else "missed defect" if label == 1 else "false alarm"
    return Result(score, threshold, outcome, rank(label, score, threshold), heat_map)
