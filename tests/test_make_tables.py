"""scripts/make_tables.py: figures, bold ones, published ones, LaTeX that compiles, and bad input."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from datasets.registry import DATA_SETS
from evaluation.run_tables import RunTable, latex_text, tabulate_runs
from scripts.make_tables import main
from tests.conftest import make_data
from winclip.metrics.formulas import METRICS
from winclip.support.names import cell

Runs = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def runs(evaluate: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run with shots, seeds and intervals, another run of the same data, and one with MVTec AD's names."""
    folder = tmp_path_factory.mktemp("runs_of_100%")
    data = make_data(folder / "data")
    assert evaluate(data, folder / "small", "--k_shot", "0", "1", "--seed", "3", "4", "--intervals") == 0
    assert evaluate(data, folder / "paper_prompts", "--prompt_set", "paper") == 0
    text = (data / "meta.json").read_text().replace('"bolt"', '"carpet"').replace('"felt"', '"screw"')
    (data / "meta.json").write_text(text)
    assert evaluate(data, folder / "mvtec", "--dataset", "mvtec") == 0
    return folder / "small", folder / "paper_prompts", folder / "mvtec"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> str:
    """The output on the stream that fits the status; the other stream is empty."""
    assert main([*map(str, arguments)]) == status
    out, error = capsys.readouterr()
    assert not (out if status else error) or "csv" in arguments
    return error if status else out


def read(table: Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def check_latex(text: str, folder: Path) -> None:
    """Rows of one width, paired braces, no unescaped special character; compiled where LaTeX is installed."""
    for line in re.findall(r"(.*) \\\\\n", text):
        spans = sum(int(number) - 1 for number in re.findall(r"\\multicolumn\{(\d)\}", line))
        assert len(re.split(r"(?<!\\)&", line)) + spans == 3 + len(METRICS)
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    assert not re.search(r"[_%#$~^<>|\"]", re.sub(r"\\[&%$#_{}]|\$\\pm\$|^% needs", "", text))
    if shutil.which("pdflatex"):
        document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{text}\\end{{document}}\n"
        (folder / "table.tex").write_text(document)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)


def test_rows_are_the_means_of_the_runs(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    table = read(io.StringIO(printed(capsys, *runs, "--format", "csv")))
    small, paper_prompts, mvtec = (str(run) for run in runs)
    assert table["source"].tolist() == [small, paper_prompts, small, mvtec, "Accurate-WinCLIP"]
    assert (table["dataset"] + table["k_shot"]).tolist() == ["small0", "small0", "small1", "mvtec0", "mvtec0"]
    for name, ends in (("results.csv", [""]), ("intervals.csv", ["_low", "_high"])):
        means = read(runs[0] / name).query("objects == 'mean' and seed in ('', 'mean')")
        columns = [metric + end for metric in METRICS for end in ends]
        assert table.loc[[0, 2], columns].to_numpy().tolist() == means[columns].to_numpy().tolist()
    assert [bool(text) for text in table["aupro_std"]] == [False, False, True, False, False]
    # Published figures cover the classes of the run: carpet and screw.
    assert float(table["auroc_px"][4]) == pytest.approx((90.9 + 91.1) / 2) and not table["aupro_low"][1]


def test_markdown_and_what_differs(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, *runs)
    lines = [[text.strip() for text in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]
    assert lines[0] == ["data set", "shots", "source", *METRICS] and len(lines) == 2 + 5
    assert re.fullmatch(r"(\*\*)?\d+\.\d(\*\*)? ± \d+\.\d \[\d+\.\d, \d+\.\d\]", lines[4][3])
    assert f"{runs[1]}: --prompt_set paper, --seed 10." in out
    assert "±: " in out and "bootstrap" in out and "Accurate-WinCLIP: " in out and "paper: " not in out
    alone = printed(capsys, runs[1])
    assert "--prompt_set" not in alone and "±" not in alone and "bootstrap" not in alone
    assert alone.count("**") == 2 * len(METRICS)


def test_best_of_rows_with_the_same_shots_or_of_all_if_none_has_two() -> None:
    shots = [
        ("a", 0, 50.0),
        ("a", 1, 61.24),
        ("a", 2, 61.16),
        ("a", 4, 61.1),
        ("b", 0, 7.0),
        ("b", 0, 8.0),
        ("b", 1, 9),
    ]
    frame = pd.DataFrame(shots, columns=["dataset", "k_shot", "aupro"])
    best = RunTable(frame.reindex(columns=["dataset", "k_shot", *METRICS]), []).best()
    assert best["aupro"].tolist() == [False, True, True, False, False, True, True] and not best["f1_px"].any()


def test_latex_compiles(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *runs, "--format", "latex")
    check_latex(text, tmp_path)
    for part in (r"runs\_of\_100\%", r"\textbf{", r"{\scriptsize$\pm$", r"{\scriptsize [", "\\midrule\nmvtec & 0"):
        assert part in text
    hostile = "".join(map(chr, [*range(33, 127), *range(161, 256)])) + "中\udcff\n\\end{table*}"
    frame = tabulate_runs(runs).frame.assign(dataset=[*"[*-~{"], source=cell(hostile))
    check_latex(RunTable(frame, [hostile]).latex(), tmp_path)
    assert latex_text("a_b é中«") == r"a\_b é\textbackslash{}u4e2d\textbackslash{}xab"


def test_means_of_the_paper_are_those_of_all_classes(runs: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(runs[2], tmp_path / "all")
    line = (run / "scores.csv").read_text().splitlines(True)[1]
    with (run / "scores.csv").open("a") as file:
        file.writelines(line.replace("carpet", name) for name in {*DATA_SETS["mvtec"].classes} - {"carpet", "screw"})
    config = (run / "config.json").read_text().replace('"finished": true', '"finished": false')
    (run / "config.json").write_text(config)
    table = tabulate_runs([run])
    assert table.frame["source"].tolist() == [str(run), "Accurate-WinCLIP", "paper", "caoyunkang"]
    assert table.frame["auroc_sp"].tolist()[1:] == [90.4, 91.8, 70.17]
    assert f"{run} did not finish: means over 15 classes." in table.notes


def test_bad_input(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, changed = runs[0], shutil.copytree(runs[1], tmp_path / "changed")
    for folder in (small / ".." / "small", tmp_path / "none"):
        assert str(folder) in printed(capsys, small, folder, status=2)
    scores, results = (changed / "scores.csv").read_text(), (changed / "results.csv").read_text()
    without = "".join(line for line in scores.splitlines(True) if ",felt," not in line)
    moved = scores.replace("felt/test/good/1.png", "felt/test/good/9.png")
    for content, names in ((without, "felt"), (scores.replace(",felt,", ",cloth,"), "felt, cloth"), (moved, "felt")):
        (changed / "scores.csv").write_text(content)
        error = printed(capsys, small, changed, status=2)
        assert f"error: {small} and {changed} differ in" in error and f" small: {names};" in error
    (changed / "scores.csv").write_text(scores)
    for content in (results.replace("mean", "median"), results.replace("mean,", "mean,x"), "a,b\n1,2\n", "\0"):
        (changed / "results.csv").write_text(content)
        assert str(changed / "results.csv") in printed(capsys, changed, status=2)
