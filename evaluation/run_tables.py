"""One table over many runs: the means over classes of every data set and number of shots, and what is published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

from datasets.registry import DATA_SETS
from evaluation.past_run import Run, read_rows, read_run
from evaluation.published import PAPER, SOURCE, paper_mean, published_mean, published_table
from evaluation.results import INTERVALS_NOTE, METRICS, Column, csv_text, interval_text, markdown
from winclip.metrics.bootstrap import Interval
from winclip.metrics.formulas import REGISTRY
from winclip.report.content import Table
from winclip.support.errors import InputError
from winclip.support.files import is_file
from winclip.support.names import cell, printable

# Options that figures can depend on.
_OPTIONS = (
    *("model", "pretrained", "image_size", "prompt_set", "class_names", "scales", "temperature"),
    *("device", "precision", "seed", "reference_list", "aupro", "metrics"),
)
# What the rows of published figures are called, and where they are from.
_PUBLISHED = {"Accurate-WinCLIP": SOURCE, "paper": PAPER}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "±": r"$\pm$",
    # Behind a line's end LaTeX takes them for an option.
    **{character: f"{{{character}}}" for character in "[]*"},
}
# Letters that need no font encoding but LaTeX's first, and the sign in our notes.
_ACCENTED = {"±", *(chr(code) for code in range(0xC0, 0x100) if code not in (0xD0, 0xD7, 0xDE, 0xF0, 0xF7, 0xFE))}


@dataclass(frozen=True)
class Row:
    """Means over the classes of a data set with a number of shots.

    Attributes:
        dataset, k_shot: of what.
        source: the run's folder, or who published the figures.
        figures: per cent, those that are known.
        deviations: over seeds, per cent; empty with one.
        limits: of intervals, as fractions; empty where there are none.
    """

    dataset: str
    k_shot: int
    source: str
    figures: Column
    deviations: Column = field(default_factory=dict)
    limits: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class RunTable:
    """All rows of a table in their order, what is the best in each, and what to know of them."""

    rows: list[Row]
    notes: list[str]

    def best(self, row: Row) -> set[str]:
        """The metrics in which no row of its group has more, as far as one decimal shows.

        A group are the rows of a data set with one number of shots; in a data set that has one row for each
        number of shots, all its rows.
        """
        same = [other for other in self.rows if other.dataset == row.dataset]
        if max(Counter(other.k_shot for other in same).values()) > 1:
            same = [other for other in same if other.k_shot == row.k_shot]
        highest = {metric: max(other.figures.get(metric, -1.0) for other in same) for metric in row.figures}
        return {metric for metric, value in row.figures.items() if f"{value:.1f}" == f"{highest[metric]:.1f}"}

    def markdown(self) -> str:
        """As a table in Markdown."""
        rows = []
        for row in self.rows:
            cells = zip(METRICS, self._cells(row, "**{}**", " ± {:.1f}"))
            with_limits = [text + interval_text(row.limits.get(metric)) for metric, text in cells]
            rows.append([row.dataset, str(row.k_shot), printable(row.source), *with_limits])
        header, notes = ["data set", "shots", "source", *METRICS], [printable(note) for note in self.notes]
        return markdown([Table("Means over classes, per cent", header, rows, notes=notes)])

    def _cells(self, row: Row, bold: str, spread: str) -> Iterator[str]:
        """A row's figures with their deviations, and the best in bold, from formats of both."""
        best = self.best(row)
        for metric in METRICS:
            value = f"{row.figures[metric]:.1f}" if metric in row.figures else "-"
            deviation = spread.format(row.deviations[metric]) if metric in row.deviations else ""
            yield (bold.format(value) if metric in best else value) + deviation

    def csv(self) -> str:
        """As CSV with six decimals: of every metric the figure, its deviation over seeds, and its interval."""
        rows = []
        for row in self.rows:
            values: list[float | str] = []
            for metric in METRICS:
                ends: list[float | str] = [100 * end for end in row.limits.get(metric, ())] or ["", ""]
                values += [row.figures.get(metric, ""), row.deviations.get(metric, ""), *ends]
            shown = [value if isinstance(value, str) else f"{value:.6f}" for value in values]
            rows.append([cell(row.dataset), row.k_shot, cell(row.source), *shown])
        names = [f"{metric}{end}" for metric in METRICS for end in ("", "_std", "_low", "_high")]
        return csv_text(["dataset", "k_shot", "source", *names], rows)

    def latex(self) -> str:
        """As a LaTeX table that needs the package booktabs; intervals stand below their figures."""
        lines = []
        for number, row in enumerate(self.rows):
            if number and self.rows[number - 1].dataset != row.dataset:
                lines.append(r"\midrule")
            names = [row.dataset, str(row.k_shot), row.source]
            figures = self._cells(row, r"\textbf{{{}}}", r"{{\scriptsize$\pm${:.1f}}}")
            lines.append(_latex_line([*map(latex_text, names), *figures]))
            if row.limits:
                ends = [interval_text(row.limits.get(metric)).strip() for metric in METRICS]
                lines.append(_latex_line(["", "", "", *(f"{{\\scriptsize {end}}}" if end else "" for end in ends)]))
        headings = [metric.title for metric in REGISTRY]
        groups = [(name, len([*same])) for name, same in groupby(metric.group for metric in REGISTRY)]
        borders = [*accumulate((count for _, count in groups), initial=3)]
        return "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table*}",
                r"\centering",
                r"\caption{Means over classes, per cent.}",
                r"\small",
                r"\setlength{\tabcolsep}{3pt}",
                r"\begin{tabular}{lrl" + "c" * len(METRICS) + "}",
                r"\toprule",
                _latex_line([" & &", *(f"\\multicolumn{{{count}}}{{c}}{{{name}}}" for name, count in groups)]),
                " ".join(f"\\cmidrule(lr){{{first + 1}-{last}}}" for first, last in pairwise(borders)),
                _latex_line(["data set", "shots", "source", *headings]),
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                *(f"\\par\\smallskip\\footnotesize {latex_text(note)}" for note in self.notes),
                r"\end{table*}",
                "",
            ]
        )


def latex_text(text: str) -> str:
    """Text of any origin for LaTeX; what its oldest fonts do not have is written as ``\\u4e2d``."""
    plain = "".join(
        one if one in _ACCENTED or one.isascii() else one.encode("ascii", "backslashreplace").decode()
        for one in printable(text)
    )
    # Two hyphens in a row would be drawn as a dash.
    return re.sub("-(?=-)", "-{}", "".join(_LATEX.get(one, one) for one in plain))


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def tabulate_runs(folders: Sequence[Path]) -> RunTable:
    """Read runs and join them, data sets in the order in which they come first.

    Args:
        folders: output folders of test.py.

    Raises:
        InputError: if one is none or is named twice, or two runs of a data set have other classes or images.
    """
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise InputError(f"run {folder} is named twice; name it once")
    runs = [read_run(folder) for folder in folders]
    by_dataset: dict[str, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(run.dataset, []).append(run)
        _check_same_data(by_dataset[run.dataset][0], run)
    rows = [row for same in by_dataset.values() for row in sorted(_rows(same), key=lambda row: row.k_shot)]
    notes = ["Bold: the best of a data set with the same number of shots; of the data set, where none has two rows."]
    if any(row.deviations for row in rows):
        notes.append("±: population standard deviation over the seeds of a run.")
    if any(row.limits for row in rows):
        notes.append(INTERVALS_NOTE)
    sources = {row.source for row in rows}
    notes += [f"{name}: published figures ({origin})." for name, origin in _PUBLISHED.items() if name in sources]
    return RunTable(rows, [*notes, *_unfinished(runs), *_made_with(runs)])


def _labels(run: Run) -> dict[str, dict[str, int]]:
    """By class and path, the label of each image."""
    scores = next(iter(run.scores.values()))
    return {name: {path: label for path, (label, _) in images.items()} for name, images in scores.items()}


def _check_same_data(first: Run, second: Run) -> None:
    """Raise InputError naming the classes that one run has and the other has not, or has other images of."""
    one, other = _labels(first), _labels(second)
    missing = {
        first.folder: [name for name in one if name not in other],
        second.folder: [name for name in other if name not in one],
    }
    only = [f"only {folder} has {', '.join(names)}" for folder, names in missing.items() if names]
    if only:
        raise InputError(
            f"two runs of {first.dataset} have other classes: {'; '.join(only)}; make both with the same --classes"
        )
    differing = [name for name in one if one[name] != other[name]]
    if differing:
        raise InputError(
            f"{first.folder} and {second.folder} have other images of {first.dataset}, in class {', '.join(differing)};"
            " give runs of the same data, or another --dataset name to one of them"
        )


def _rows(runs: Sequence[Run]) -> Iterator[Row]:
    """Those of all runs of a data set, and behind them what is published of it."""
    dataset, classes = runs[0].dataset, [*_labels(runs[0])]
    shots = dict.fromkeys(setting.k_shot for run in runs for setting in run.scores)
    for run in runs:
        yield from _rows_of_run(run)
    for k_shot in shots:
        table = published_table(dataset, k_shot)
        means = {metric: published_mean(table, classes, metric) for metric in METRICS} if table else {}
        known = {metric: value for metric, value in means.items() if value is not None}
        paper = (
            paper_mean(dataset, k_shot) if dataset in DATA_SETS and {*classes} == {*DATA_SETS[dataset].classes} else {}
        )
        yield from (Row(dataset, k_shot, name, part) for name, part in zip(_PUBLISHED, (known, paper)) if part)


def _rows_of_run(run: Run) -> Iterator[Row]:
    figures = _means(run.folder / "results.csv", "results")
    path = run.folder / "intervals.csv"
    limits = _means(path, "intervals") if is_file(path) else {}
    for k_shot in dict.fromkeys(setting.k_shot for setting in run.scores):
        settings = run.settings(k_shot)
        seed = "mean" if len(settings) > 1 else settings[0].seed_text
        if (k_shot, seed) not in figures:
            raise InputError(f"{run.folder / 'results.csv'} has no mean of {k_shot}-shot; make the run again")
        ends = limits.get((k_shot, seed), {})
        yield Row(
            run.dataset,
            k_shot,
            str(run.folder),
            figures[k_shot, seed],
            figures.get((k_shot, "std"), {}),
            {m: (ends[f"{m}_low"] / 100, ends[f"{m}_high"] / 100) for m in METRICS if f"{m}_low" in ends},
        )


def _means(path: Path, what: str) -> dict[tuple[int, str], Column]:
    """By number of shots and seed, the columns of the rows ``mean`` that are not empty."""
    found: dict[tuple[int, str], Column] = {}
    for number, row in enumerate(read_rows(path, what), start=2):
        try:
            if row["objects"] == "mean":
                values = {name: row[name] for name in row if name.startswith(METRICS)}
                found[int(row["k_shot"]), row["seed"]] = {name: float(value) for name, value in values.items() if value}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not {what} of a run; make the run again") from error
    return found


def _unfinished(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.folder} did not come to its end: means over {len(_labels(run))} classes."
        for run in runs
        if not run.finished
    ]


def _made_with(runs: Sequence[Run]) -> list[str]:
    """For every run, in what it differs from others."""
    facts: list[dict[str, Any]] = [
        {
            **{f"--{name}": run.config["options"].get(name) for name in _OPTIONS},
            "weights": str(run.config.get("weights_sha256"))[:12],
            "version": dict(run.config.get("versions") or {}).get("winclip"),
        }
        for run in runs
    ]
    differing = [name for name in facts[0] if any(other[name] != facts[0][name] for other in facts)]
    return [
        f"{run.folder}: {', '.join(f'{name} {_words(made[name])}' for name in differing)}."
        for run, made in zip(runs, facts)
        if differing
    ]


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
