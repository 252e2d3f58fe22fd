"""The means along a chain of variants that changes one switch at a time."""

from __future__ import annotations

from evaluation.options import Setting
from evaluation.results import METRICS, Column, Results, by_shots, csv_text, mean_notes, over_seeds, with_mean
from winclip.report.content import Table
from winclip.support.names import cell
from winclip.variants import parse_variant, steps

# Means, as fractions, may differ by rounding.
_SAME = 1e-9
_NOTE = (
    "Means over classes, per cent, and the mean of the differences from the line above, over classes that have the"
    " figure in both; 0.0 without a sign is no difference."
)


def steps_of(results: Results, first: str, last: str) -> tuple[list[Table], str]:
    """The chain from one variant to another, as tables and as CSV.

    Args:
        results: those of a run in all variants of the chain.
        first, last: as ``parse_variant`` takes them.

    Returns:
        A table for each number of shots: for every step the means over classes and seeds, with the difference from the
        step before, per cent; and steps.csv, with six decimals, empty where undefined.
    """
    groups, tables, lines = by_shots(results), [], []
    for k_shot in dict.fromkeys(shots.k_shot for shots in groups):
        before: dict[str, Column] = {}
        rows, notes = [], [_NOTE]
        for change, variant in steps(parse_variant(first), parse_variant(last)):
            settings = groups[Setting(k_shot, None, variant.name)]
            now, _ = over_seeds([with_mean(results.figures[setting]) for setting in settings])
            notes += [f"{change}: {note}" for note in mean_notes(now)]
            # Of classes that have the figure in both.
            differences = with_mean({name: _differences(column, now[name]) for name, column in before.items()})["mean"]
            rows.append([change, *(_text(now["mean"].get(m), differences.get(m)) for m in results.metrics)])
            values = [column.get(metric) for column in (now["mean"], differences) for metric in METRICS]
            figures = ["" if value is None else f"{100 * value:.6f}" for value in values]
            lines.append([cell(results.dataset), k_shot, change, cell(variant.name), *figures])
            before = {name: column for name, column in now.items() if name != "mean"}
        title = f"{results.dataset}, {k_shot}-shot, from {first} to {last}"
        tables.append(Table(title, ["switch", *results.metrics], rows, notes=notes))
    header = ["dataset", "k_shot", "switch", "variant", *METRICS, *(f"{metric}_difference" for metric in METRICS)]
    return tables, csv_text(header, lines)


def _differences(before: Column, now: Column) -> Column:
    return {metric: now[metric] - before[metric] for metric in now if metric in before}


def _text(now: float | None, difference: float | None) -> str:
    if now is None:
        return "-"
    if difference is None:
        return f"{100 * now:.1f}"
    return f"{100 * now:.1f} ({'0.0' if abs(difference) < _SAME else f'{100 * difference:+.1f}'})"
