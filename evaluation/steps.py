"""The means along a chain of variants that changes one switch at a time."""

from __future__ import annotations

from evaluation.results import METRICS, Results, by_shots, csv_text, over_seeds, with_mean
from winclip.report.content import Table
from winclip.support.names import cell
from winclip.variants import parse_variant, steps

# Means, as fractions, may differ by rounding.
_SAME = 1e-9


def steps_of(results: Results, first: str, last: str) -> tuple[list[Table], str]:
    """The chain from one variant to another, as tables and as CSV.

    Args:
        results: those of a run in all variants of the chain.
        first, last: as ``parse_variant`` takes them.

    Returns:
        A table for each number of shots: for every step the means over classes and seeds, with the difference from the
        step before, per cent; and steps.csv, with six decimals, empty where undefined.
    """
    groups = by_shots(results)
    means = {
        shots: over_seeds([with_mean(results.figures[one]) for one in groups[shots]])[0]["mean"] for shots in groups
    }
    tables, lines = [], []
    for k_shot in dict.fromkeys(shots.k_shot for shots in groups):
        before, rows = dict[str, float](), []
        for change, variant in steps(parse_variant(first), parse_variant(last)):
            (now,) = (mean for shots, mean in means.items() if (shots.variant, shots.k_shot) == (variant.name, k_shot))
            differences = {metric: now[metric] - before[metric] for metric in now if metric in before}
            rows.append([change, *(_text(now.get(m), differences.get(m)) for m in results.metrics)])
            values = [column.get(metric) for column in (now, differences) for metric in METRICS]
            figures = ["" if value is None else f"{100 * value:.6f}" for value in values]
            lines.append([cell(results.dataset), k_shot, change, cell(variant.name), *figures])
            before = now
        note = (
            "Means over classes, per cent, and the difference from the line above; 0.0 without a sign is no difference."
        )
        title = f"{results.dataset}, {k_shot}-shot, from {first} to {last}"
        tables.append(Table(title, ["switch", *results.metrics], rows, notes=[note]))
    header = ["dataset", "k_shot", "switch", "variant", *METRICS, *(f"{metric}_difference" for metric in METRICS)]
    return tables, csv_text(header, lines)


def _text(now: float | None, difference: float | None) -> str:
    if now is None:
        return "-"
    if difference is None:
        return f"{100 * now:.1f}"
    return f"{100 * now:.1f} ({'0.0' if abs(difference) < _SAME else f'{100 * difference:+.1f}'})"
