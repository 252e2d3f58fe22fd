"""One table over many runs: the means over classes of every data set and number of shots, and published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.registry import DATA_SETS
from evaluation.past_run import Run, read_rows, read_run
from evaluation.published import SOURCE, STATED, published_mean, published_table, stated_means
from evaluation.results import INTERVALS_NOTE, METRICS, interval_text, markdown
from winclip.metrics.formulas import REGISTRY
from winclip.report.content import Table
from winclip.support.errors import InputError
from winclip.support.files import is_file
from winclip.support.names import cell, counted, from_cell, printable
from winclip.variants import REFERENCE

# Options that figures can depend on.
_OPTIONS = (
    *("model", "pretrained", "image_size", "prompt_set", "class_names", "scales", "temperature"),
    *("device", "precision", "seed", "reference_list", "aupro", "metrics"),
)
# Names and sources of the rows of published figures.
_PUBLISHED = {"Accurate-WinCLIP": SOURCE, **STATED}
_NAMES = ["dataset", "k_shot", "source"]
_HEADINGS = [(metric.group, metric.title) for metric in REGISTRY]
# The columns of each group of metrics, counted from 1.
_GROUPS = [
    [number for number, (name, _) in enumerate(_HEADINGS, start=len(_NAMES) + 1) if name == group]
    for group in dict.fromkeys(group for group, _ in _HEADINGS)
]
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    # After a line break LaTeX reads the first three as an option; two hyphens in a row would be drawn as a dash.
    | {character: f"{{{character}}}" for character in "[]*-"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\symbol{34}"}
)
# Letters of LaTeX's default font encoding, and the sign in the notes.
_ACCENTED = {"±", *map(chr, {*range(0xC0, 0x100)} - {0xD0, 0xD7, 0xDE, 0xF0, 0xF7, 0xFE})}


@dataclass(frozen=True)
class RunTable:
    """All rows of a table in their order, and notes on them.

    Attributes:
        frame: as the CSV has it: data set, number of shots and source (a run's folder, or who published the figures);
            for every metric the figure, its deviation over seeds and the ends of its interval; per cent or NaN.
        notes: paragraphs below it.
    """

    frame: pd.DataFrame
    notes: list[str]

    def _part(self, end: str) -> pd.DataFrame:
        """The columns with this end of their names, by metric."""
        return self.frame[[metric + end for metric in METRICS]].set_axis([*METRICS], axis=1)

    def best(self) -> pd.DataFrame:
        """For every row and metric, whether the figure is the largest of its group, at one decimal.

        A group is the rows of a data set with the same number of shots, or all rows of a data set that has one
        row for each number of shots.
        """
        dataset, k_shot = self.frame["dataset"], self.frame["k_shot"]
        several = self.frame.duplicated(["dataset", "k_shot"]).groupby(dataset).transform("any")
        shown = self._part("").map("{:.1f}".format).astype(float)
        return shown == shown.groupby([dataset, k_shot.where(several, -1)]).transform("max")

    def _texts(self, name: Callable[[str], str], bold: str, std: str) -> pd.DataFrame:
        """Names as the function gives them; figures with deviations, the best in bold, in the given formats."""
        figures, deviations = self._part(""), self._part("_std")
        texts = figures.map("{:.1f}".format).where(figures.notna(), "-")
        texts = texts.mask(self.best(), texts.map(bold.format))
        texts += deviations.map(std.format).where(deviations.notna(), "")
        return self.frame[_NAMES].map(lambda text: name(from_cell(str(text)))).join(texts)

    def _limits(self) -> pd.DataFrame:
        """Intervals as they follow their figures; empty text if there is none."""
        low, high = self._part("_low") / 100, self._part("_high") / 100
        texts = {metric: [*map(interval_text, zip(low[metric], high[metric]))] for metric in METRICS}
        return pd.DataFrame(texts).where(low.notna(), "")

    def markdown(self) -> str:
        """As a table in Markdown."""
        texts = self._texts(printable, "**{}**", " ± {:.1f}")
        texts[[*METRICS]] += self._limits()
        header, notes = ["data set", "shots", "source", *METRICS], [printable(note) for note in self.notes]
        return markdown([Table("Means over classes, per cent", header, texts.to_numpy().tolist(), notes=notes)])

    def csv(self) -> str:
        """As CSV with six decimals."""
        return self.frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")

    def latex(self) -> str:
        """As a LaTeX table that needs the package booktabs; intervals stand below their figures."""
        texts = self._texts(latex_text, r"\textbf{{{}}}", r"{{\scriptsize$\pm${:.1f}}}")
        starts = ~self.frame["dataset"].duplicated() & (self.frame.index > 0)
        texts["dataset"] = texts["dataset"].mask(starts, "\\midrule\n" + texts["dataset"])
        limits = self._limits()
        limits = limits[(limits != "").any(axis=1)].map("{{\\scriptsize{}}}".format)
        rows = pd.concat([texts, limits]).sort_index(kind="stable", ignore_index=True)
        rules = " ".join(f"\\cmidrule(lr){{{group[0]}-{group[-1]}}}" for group in _GROUPS)
        names = [("", f"{rules}\ndata set"), ("", "shots"), ("", "source")]
        rows.columns = pd.MultiIndex.from_tuples([*names, *_HEADINGS])
        form = {"column_format": "lrl" + "c" * len(METRICS), "multicolumn_format": "c"}
        tabular = rows.to_latex(index=False, na_rep="", escape=False, **form)
        notes = "".join(f"\\par\\smallskip\\footnotesize {latex_text(note)}\n" for note in self.notes)
        return (
            "% needs \\usepackage{booktabs}\n\\begin{table*}\n\\centering\n\\caption{Means over classes, per cent.}\n"
            f"\\small\n\\setlength{{\\tabcolsep}}{{3pt}}\n{tabular}{notes}\\end{{table*}}\n"
        )


def latex_text(text: str) -> str:
    """Any text, escaped for LaTeX; characters that its oldest fonts lack are written as ``\\u4e2d``."""
    plain = (one if one.isascii() or one in _ACCENTED else ascii(one)[1:-1] for one in printable(text))
    return "".join(plain).translate(_LATEX)


def tabulate_runs(folders: Sequence[Path]) -> RunTable:
    """Read runs and join them, data sets in order of first appearance.

    Args:
        folders: output folders of test.py.

    Raises:
        InputError: if a folder holds no run or is named twice, or two runs of a data set differ in classes or images.
    """
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise InputError(f"run {folder} is named twice; name it once")
    runs = [read_run(folder) for folder in folders]
    datasets = dict.fromkeys(run.dataset for run in runs)
    rows = [row for name in datasets for row in _rows([run for run in runs if run.dataset == name])]
    frame = pd.DataFrame(rows, columns=[*_NAMES, *(m + end for m in METRICS for end in ("", "_std", "_low", "_high"))])
    notes = ["Bold: the best of a data set with the same number of shots, or of the data set if none has two rows."]
    if frame.filter(like="_std").notna().any(axis=None):
        notes.append("±: population standard deviation over the seeds of a run.")
    if frame.filter(like="_low").notna().any(axis=None):
        notes.append(INTERVALS_NOTE)
    sources = {*frame["source"]}
    notes += [f"{name}: published figures ({origin})." for name, origin in _PUBLISHED.items() if name in sources]
    parts = [run for run in runs if not run.finished]
    counts = [counted(len(run.labels), "class", "classes") for run in parts]
    notes += [f"{run.folder} did not finish: means over {count}." for run, count in zip(parts, counts)]
    return RunTable(frame, [*notes, *_made_with(runs)])


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The rows of all runs of a data set and of its published figures, by number of shots."""
    dataset, labels = runs[0].dataset, runs[0].labels
    for run in runs:
        differing = [name for name in {**labels, **run.labels} if labels.get(name) != run.labels.get(name)]
        if differing:
            raise InputError(
                f"{runs[0].folder} and {run.folder} differ in classes or images of {dataset}: {', '.join(differing)};"
                " give runs of the same data and --classes, or another --dataset name to one of them"
            )
    rows = [row for run in runs for row in _rows_of_run(run)]
    all_classes = dataset in DATA_SETS and labels.keys() == {*DATA_SETS[dataset].classes}
    for k_shot in dict.fromkeys(row["k_shot"] for row in rows):
        table = published_table(dataset, k_shot)
        means = {metric: published_mean(table, [*labels], metric) for metric in METRICS}
        published: dict[str, Mapping[str, float | None]] = {"Accurate-WinCLIP": means}
        published |= stated_means(dataset, k_shot) if all_classes else {}
        for source, figures in published.items():
            if any(value is not None for value in figures.values()):
                rows.append({"dataset": cell(dataset), "k_shot": k_shot, "source": source, **figures})
    return sorted(rows, key=lambda row: row["k_shot"])


def _rows_of_run(run: Run) -> Iterator[dict[str, Any]]:
    figures = _means(run.folder / "results.csv", "results")
    path = run.folder / "intervals.csv"
    limits = _means(path, "intervals") if is_file(path) else {}
    for (variant, k_shot), setting in {(setting.variant, setting.k_shot): setting for setting in run.scores}.items():
        seed = "mean" if (variant, k_shot, "mean") in figures else setting.seed_text
        key = variant, k_shot, seed
        if key not in figures:
            raise InputError(f"{run.folder / 'results.csv'} has no mean of {setting.shots}; make the run again")
        source = str(run.folder) if variant == REFERENCE.name else f"{run.folder} ({variant})"
        names = {"dataset": cell(run.dataset), "k_shot": k_shot, "source": cell(source)}
        deviations = {f"{metric}_std": value for metric, value in figures.get((variant, k_shot, "std"), {}).items()}
        yield {**names, **figures[key], **deviations, **limits.get(key, {})}


def _means(path: Path, what: str) -> dict[tuple[str, int, str], dict[str, float]]:
    """By variant, number of shots and seed, the columns of the rows ``mean`` that are not empty."""
    rows = read_rows(path, what)
    try:
        return {
            (from_cell(row.get("variant", REFERENCE.name)), int(row["k_shot"]), row["seed"]): {
                m: float(row[m]) for m in row if m.startswith(METRICS) and row[m]
            }
            for row in rows
            if row["objects"] == "mean"
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} does not hold the {what} of a run ({error}); make the run again") from error


def _made_with(runs: Sequence[Run]) -> list[str]:
    """For every run, the options and versions in which runs differ."""
    facts = []
    for run in runs:
        made = {f"--{name}": run.config["options"].get(name) for name in _OPTIONS}
        made |= {"weights": str(run.config.get("weights_sha256"))[:12]}
        made |= {"version": dict(run.config.get("versions") or {}).get("winclip")}
        facts.append({name: " ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in made.items()})
    differing = [name for name in facts[0] if len({made[name] for made in facts}) > 1]
    told = [", ".join(f"{name} {made[name]}" for name in differing) for made in facts]
    return [f"{run.folder}: {text}." for run, text in zip(runs, told) if text]
