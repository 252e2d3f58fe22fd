"""Whether two runs differ: paired bootstrap over the images that both have scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from evaluation.measuring import ClassMetrics, MetricOptions, measure_class
from evaluation.options import Setting
from evaluation.parts import Parts
from evaluation.past_run import Run
from evaluation.results import METRICS, Column, averaged, csv_text, interval_text, with_mean
from winclip.metrics.bootstrap import RESAMPLES, Interval, interval
from winclip.metrics.formulas import Float64
from winclip.report.content import Table
from winclip.support.errors import InputError
from winclip.support.names import cell, counted

# By class and path, 1 for defective images, else 0.
Labels = dict[str, dict[str, int]]


@dataclass
class Comparison:
    """The comparison of two runs.

    Attributes:
        title: what was compared.
        figures: of each run, by class and their mean, as fractions, over the images that both runs have.
        intervals: of the differences, the second run's figure minus the first's; unknown ones are missing.
        notes: what was left out, and why.
    """

    title: str
    figures: tuple[dict[str, Column], dict[str, Column]] = field(default_factory=lambda: ({}, {}))
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def difference(self, name: str, metric: str) -> float:
        """The difference of a class's figure, as a fraction."""
        first, second = self.figures
        return second[name][metric] - first[name][metric]

    def table(self) -> Table:
        """Differences with their intervals in per cent; a star if the interval excludes 0."""
        rows = [[name, *(self._cell(name, metric) for metric in METRICS)] for name in self.figures[0]]
        explained = (
            "Second run minus first, per cent, over the images that both have;"
            f" [low, high]: 95 % interval by paired bootstrap, {RESAMPLES:,} resamples; *: it excludes 0."
        )
        return Table(self.title, ["objects", *METRICS], rows[:-1], rows[-1], [explained, *self.notes])

    def _cell(self, name: str, metric: str) -> str:
        if metric not in self.figures[0][name]:
            return "-"
        limits = self.intervals[name].get(metric)
        star = "*" if limits is not None and not limits[0] <= 0 <= limits[1] else ""
        return f"{100 * self.difference(name, metric):+.1f}{interval_text(limits, '+')}{star}"

    def csv(self) -> str:
        """comparison.csv: a row for each class and metric, per cent, six decimals."""
        rows = []
        for name, column in self.figures[0].items():
            for metric, first in column.items():
                second, limits = self.figures[1][name][metric], self.intervals[name].get(metric)
                values = [first, second, second - first, *(limits or ())]
                cells = [f"{100 * value:.6f}" for value in values]
                rows.append([cell(name), metric, *cells, *[""] * (5 - len(cells))])
        header = ["objects", "metric", "first", "second", "difference", "difference_low", "difference_high"]
        return csv_text(header, rows)

    def drawing(self) -> str:
        """comparison.svg: the differences that have an interval."""
        from winclip.report.plots import difference_plot

        limits = {(name, metric): both for name, found in self.intervals.items() for metric, both in found.items()}
        differences = {key: (100 * self.difference(*key), 100 * low, 100 * high) for key, (low, high) in limits.items()}
        metrics = [metric for metric in METRICS if any(key[1] == metric for key in differences)]
        return difference_plot(f"{self.title}, per cent", list(self.intervals), metrics or METRICS, differences)


def compare(
    runs: tuple[Run, Run], k_shots: Sequence[int | None], variants: Sequence[str | None] = (None, None)
) -> Comparison:
    """Compare two runs, each with a number of shots; several seeds are averaged.

    Args:
        runs: both.
        k_shots: numbers of shots; None for a run with only one.
        variants: their names; None for a run with only one.

    Raises:
        InputError: if a number of shots or the scores are missing, the runs share no image, or an image is good
            in one run and defective in the other.
    """
    first, second = (_Side.of(run, run.settings(k, name)) for run, k, name in zip(runs, k_shots, variants))
    result = Comparison(f"{second.title} minus {first.title}", notes=_differing(*runs))
    method = MetricOptions(runs[0].aupro, runs[0].metrics, intervals=True)
    differences: dict[str, dict[str, Float64]] = {}
    reasons: dict[str, list[str]] = {}
    for name, images in _common(first.labels, second.labels, result.notes):
        sides = [side.measure(name, images, method) for side in (first, second)]
        for reason in dict.fromkeys(measured.defects for measured, *_ in sides if isinstance(measured.defects, str)):
            reasons.setdefault(reason, []).append(name)
        one, other = (_over_seeds(measured) for measured in sides)
        common = [metric for metric in METRICS if metric in one[0] and metric in other[0]]
        for column, (figures, _) in zip(result.figures, (one, other)):
            column[name] = {metric: figures[metric] for metric in common}
        # Figures that differ only by float rounding count as equal; + 0 turns -0 into 0.
        differences[name] = {metric: (other[1][metric] - one[1][metric]).round(12) + 0 for metric in common}
    for column in result.figures:
        column["mean"] = with_mean(column)["mean"]
    differences["mean"] = averaged(list(differences.values()), any)
    for name, values in differences.items():
        limits = {metric: interval(part) for metric, part in values.items()}
        result.intervals[name] = {metric: both for metric, both in limits.items() if both is not None}
    result.notes += [f"Image metrics only of {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return result


def _differing(first: Run, second: Run) -> list[str]:
    """What to know about the runs before trusting a difference."""
    notes = [f"{run.folder} did not finish." for run in (first, second) if not run.finished]
    for name in ("dataset", "data_path", "aupro"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            taken = f", {one} is taken" if name == "aupro" else ""
            notes.append(f"The runs have --{name} {one} and {other}{taken}.")
    return notes


def _common(first: Labels, second: Labels, notes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Classes and image paths that both runs have; notes say what only one has."""
    for one, other, which in ((first, second, "first"), (second, first, "second")):
        only = [name for name in one if not one[name].keys() & other.get(name, {}).keys()]
        left = sum(len(one[name].keys() - other[name].keys()) for name in one if name not in only)
        if only:
            notes.append(f"Left out, since only the {which} run has them: {', '.join(only)}.")
        if left:
            count = counted(left, "image")
            notes.append(f"Left out, since only the {which} run has them: {count} of the other classes.")
        if len(only) == len(one):
            raise InputError("the runs have no image in common; give runs of the same data")
    for name in first:
        images = [image for image in first[name] if image in second.get(name, {})]
        for image in images:
            if first[name][image] != second[name][image]:
                raise InputError(
                    f"{image} of class {name} is good in one run and defective in the other; give runs of the same data"
                )
        if images:
            yield name, images


@dataclass(frozen=True)
class _Side:
    """A run, its settings with one number of shots, and its parts."""

    run: Run
    settings: list[Setting]
    parts: Parts

    @staticmethod
    def of(run: Run, settings: list[Setting]) -> _Side:
        return _Side(run, settings, Parts.of(run.folder / str(run.config.get("scored", {}).get("parts"))))

    @property
    def title(self) -> str:
        return f"{self.run.folder}, {self.settings[0].shots}"

    @property
    def labels(self) -> Labels:
        """By class and path, the labels of the images that every seed has."""
        first, *others = (self.run.scores[setting] for setting in self.settings)
        return {
            name: {
                image: label
                for image, (label, _) in of_class.items()
                if all(image in seed.get(name, {}) for seed in others)
            }
            for name, of_class in first.items()
        }

    def measure(self, name: str, images: list[str], method: MetricOptions) -> list[ClassMetrics]:
        """The metrics of some images of a class, in every setting."""
        scored = self.parts.read(name, self.settings).scores
        places = {item.img_path: place for place, item in enumerate(scored.items)}
        image_size = self.run.config["options"]["image_size"]
        return list(measure_class(scored.at([places[image] for image in images], self.settings), image_size, method))


def _over_seeds(measured: Sequence[ClassMetrics]) -> tuple[Column, dict[str, Float64]]:
    """Figures and their values in resamples, averaged over seeds; a metric that a seed lacks is left out."""
    columns = [each.figures for each in measured]
    common = [metric for metric in METRICS if all(metric in column for column in columns)]
    means = {metric: fmean(column[metric] for column in columns) for metric in common}
    return means, averaged([each.resampled for each in measured], all)
