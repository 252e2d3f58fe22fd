"""Text lines about the references of a run, known defects and the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winclip.prediction.rows import Row
from winclip.prediction.scoring import Whole
from winclip.results import Prediction
from winclip.support.errors import InputError
from winclip.support.names import counted, printable
from winclip.thresholds import PARTS, LeftOut, Threshold


def about_references(names: Sequence[str], left_out: LeftOut | None, threshold: Threshold) -> list[str]:
    """The range of the references' own scores, each against the others, and the references that stand out."""
    if left_out is None:
        return []
    parts = {part: getattr(left_out, part) for part in PARTS}
    ranges = [f"{part} part {min(values):.3f} to {max(values):.3f}" for part, values in parts.items()]
    lines = [f"{counted(len(names), 'reference')}, each against the others: {', '.join(ranges)}"]
    apart: dict[int, list[str]] = {}
    for part, number, _ in left_out.standing_out():
        others = [value for other, value in enumerate(parts[part]) if other != number]
        said = f"{part} part {parts[part][number]:.3f}, the others {min(others):.3f} to {max(others):.3f}"
        apart.setdefault(number, []).append(said)
    for number, each in sorted(apart.items()):
        aside = (
            "; is it good? It stays in the memory, and the thresholds are taken without it"
            if number in threshold.aside
            else ""
        )
        lines.append(f"  {printable(names[number])} stands out: {'; '.join(each)}{aside}")
    return lines


def about_known_defects(
    scorer: Whole, paths: Sequence[str], threshold: Threshold, left_out: LeftOut | None, share: float | None
) -> list[str]:
    """How many known defects are found, and with ``share`` the threshold that finds this share of them.

    Raises:
        InputError: if no known defect has a score.
    """
    scored = [outcome[0] for batch in scorer.outcomes(paths) for _, outcome in batch if not isinstance(outcome, str)]
    if not scored:
        raise InputError(f"none of the {counted(len(paths), 'known defect')} has a score; see --known_defects")
    verdicts = [verdict for one in scored for verdict in threshold.judge(one)]
    said = f"{sum(map(bool, verdicts))} found" if threshold.judges else "not judged"
    lines = [f"{counted(len(scored), 'known defect')}: {said}"]
    if share is not None and threshold.judges and sum(map(bool, verdicts)) >= share * len(scored):
        lines[0] += ", as many as --find wants"
    elif share is not None:
        lines.append(_proposal(scored, left_out, share))
    return lines


def _proposal(scored: Sequence[Prediction], left_out: LeftOut | None, share: float) -> str:
    """The threshold that finds a share of known defects and is exceeded by the fewest references, as an option."""
    wanted = math.ceil(share * len(scored))
    candidates = []
    for name, part in (("reference", "reference_scores"), ("score", "scores"), ("text", "text_scores")):
        values = [getattr(one, part) for one in scored]
        if values[0] is not None:
            # Rounded down, so that the picture itself is above it.
            limit = max(math.floor(float(sorted(values)[-wanted][0]) * 1e4 - 1e-6) / 1e4, 0)
            good = [] if left_out is None else getattr(left_out, name)
            candidates.append((sum(value > limit for value in good), name, limit, len(good)))
    alarms, name, limit, count = min(candidates, key=lambda one: one[0])
    expected = "how many good pictures exceed it is not known without references"
    if count:
        expected = (
            f"{alarms} of {counted(count, 'reference')} exceed it, which allows for up to"
            f" {100 * (alarms + 1) / (count + 1):.0f} false alarms in 100 good pictures"
        )
    return f"  --threshold {'' if name == 'score' else f'{name}='}{limit:.4f} finds {wanted} of them; {expected}"


def about_results(rows: Sequence[Row], threshold: Threshold) -> list[str]:
    """Explanations where no picture is anomalous, or no heat map shows an anomaly."""
    lines = []
    if rows[0].reference_score is None:
        texts = [row.text_score for row in rows]
        lines.append(
            "without good pictures there is only the text part; it knows defects from words, and may be high on all"
            f" pictures of a kind: here {min(texts):.3f} to {max(texts):.3f}"
        )
    if not any(row.anomalous for row in rows) and threshold.judges:
        highest = max(row.score if row.reference_score is None else row.reference_score for row in rows)
        name = "score" if rows[0].reference_score is None else "reference part"
        lines.append(
            f"none is anomalous (highest {name} {highest:.4g}): all are good, or the model does not see their defects;"
            " --known_defects DIR tells which"
        )
    if rows[0].area is not None and max(row.map_highest for row in rows) <= threshold.pixel:
        lines.append("no pixel is above the pixel threshold: the colours of the heat maps show a ranking, not defects")
    return lines
