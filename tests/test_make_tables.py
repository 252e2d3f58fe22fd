"""scripts/make_tables.py: figures, what is bold, what is published, LaTeX that compiles, and bad input."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.run_tables import Row, RunTable, latex_text, tabulate_runs
from scripts.make_tables import main
from tests.conftest import make_data

Evaluate = Callable[..., int]
METRICS = ["auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp"]


@pytest.fixture(scope="module")
def runs(evaluate: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A run with shots, seeds and intervals, another one of the same data, and one with names of MVTec AD."""
    folder = tmp_path_factory.mktemp("runs_of_100%")
    data = make_data(folder / "data")
    shots = ("--k_shot", "0", "1", "--seed", "3", "4")
    assert evaluate(data, folder / "small", *shots, "--intervals") == 0
    assert evaluate(data, folder / "paper_prompts", "--prompt_set", "paper") == 0
    text = (data / "meta.json").read_text().replace('"bolt"', '"carpet"').replace('"felt"', '"screw"')
    (data / "meta.json").write_text(text)
    assert evaluate(data, folder / "mvtec", "--dataset", "mvtec") == 0
    return folder / "small", folder / "paper_prompts", folder / "mvtec"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([*map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and not captured.out
    return captured.err


def check_latex(text: str) -> None:
    """Environments and braces that end, rows of one width, and no character that LaTeX takes for something else."""
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([\w*]+)\}", text):
        assert kind == "begin" or opened.pop() == name
        opened += [name] * (kind == "begin")
    assert not opened
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    for line in inside.splitlines():
        if re.fullmatch(r"\\(top|mid)rule|(\\cmidrule\(lr\)\{\d-\d+\} ?)+", line):
            continue
        assert line.endswith(r" \\")
        spans = [re.match(r"\s*\\multicolumn\{(\d)\}", part) for part in re.split(r"(?<!\\)&", line)]
        assert sum(int(span[1]) if span else 1 for span in spans) == len(columns[1])
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert text.startswith("% needs \\usepackage{booktabs}\n")
    plain = re.sub(r"\\[&%$#_{}]|\$\\pm\$", "", text.split("\n", 1)[1])
    assert not re.findall(r"[_%#$~^<>|\"]", plain)


def compile_latex(text: str, folder: Path) -> None:
    """Compile a document with the table, where there is a LaTeX."""
    if shutil.which("pdflatex") is None:
        return
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{text}\\end{{document}}\n"
    (folder / "table.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0 and (folder / "table.pdf").is_file(), done.stdout


def test_rows_are_the_means_of_the_runs(runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    table = list(csv.DictReader(io.StringIO(printed(capsys, *runs, "--format", "csv"))))
    small, paper_prompts, mvtec = map(str, runs)
    assert [(row["dataset"], row["k_shot"], row["source"]) for row in table] == [
        ("small", "0", small), ("small", "0", paper_prompts), ("small", "1", small),
        ("mvtec", "0", mvtec), ("mvtec", "0", "Accurate-WinCLIP"),
    ]  # fmt: skip
    for row, seed in ((table[0], ""), (table[2], "mean")):
        for name, ends in (("results.csv", [""]), ("intervals.csv", ["_low", "_high"])):
            with (runs[0] / name).open(newline="") as file:
                (mean,) = (
                    line
                    for line in csv.DictReader(file)
                    if (line["k_shot"], line["seed"], line["objects"]) == (row["k_shot"], seed, "mean")
                )
            assert [row[m + end] for m in METRICS for end in ends] == [mean[m + end] for m in METRICS for end in ends]
    assert table[2]["aupro_std"] and not table[0]["aupro_std"] and not table[1]["aupro_low"]
    # Published figures are those of the classes of the run: carpet and screw.
    assert float(table[4]["auroc_px"]) == pytest.approx((90.9 + 95.6) / 2, abs=4) and table[4]["auroc_px_std"] == ""


def test_markdown_and_what_differs(runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, *runs)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]
    assert lines[0] == ["data set", "shots", "source", *METRICS] and len(lines) == 2 + 5
    assert re.fullmatch(r"(\*\*)?\d+\.\d(\*\*)? ± \d+\.\d \[\d+\.\d, \d+\.\d\]", lines[4][3])
    for column in range(3, 10):
        for group in (lines[2:4], lines[5:7]):
            figures = {float(re.findall(r"[\d.]+", line[column])[0]): "**" in line[column] for line in group}
            assert figures[max(figures)] and sum(figures.values()) == 1
    assert (
        f"{runs[1]}: --prompt_set paper, --seed 10." in out and f"{runs[0]}: --prompt_set reference, --seed 3 4." in out
    )
    assert "±: population standard deviation" in out and "95 % bootstrap interval" in out
    assert "Accurate-WinCLIP: published figures" in out and "paper: published" not in out
    alone = printed(capsys, runs[1])
    assert "--prompt_set" not in alone and "±" not in alone and "bootstrap" not in alone and alone.count("**") == 14


def test_best_of_a_data_set_with_one_row_for_each_number_of_shots() -> None:
    rows = [Row("a", k, "run", {"aupro": value}) for k, value in ((0, 50.0), (1, 61.24), (2, 61.16), (4, 61.1))]
    table = RunTable([*rows, Row("b", 0, "run", {"aupro": 99.0})], [])
    assert [table.best(row) for row in rows] == [set(), {"aupro"}, {"aupro"}, set()]


def test_latex_compiles(runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *runs, "--format", "latex")
    check_latex(text)
    assert (
        r"runs\_of\_100\%" in text and text.count(r"\textbf{") >= 14 and r"$\pm$" in text and r"{\scriptsize [" in text
    )
    hostile = "".join(map(chr, [*range(33, 127), *range(161, 256)])) + "中\udcff\n\\end{table*}"
    rows = [Row(hostile, 0, hostile, {"aupro": 1.0}), Row("[2cm]", 0, "*", {})]
    strange = RunTable(rows, [hostile]).latex()
    check_latex(strange)
    compile_latex(text + strange, tmp_path)
    assert latex_text("a_b é中«") == r"a\_b é\textbackslash{}u4e2d\textbackslash{}xab"


def test_means_of_the_paper_are_those_of_all_classes(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from datasets.registry import DATA_SETS

    run = shutil.copytree(runs[2], tmp_path / "all")
    lines = (run / "scores.csv").read_text().splitlines()
    template = lines[1]
    lines += [
        template.replace("carpet", name) for name in DATA_SETS["mvtec"].classes if name not in ("carpet", "screw")
    ]
    (run / "scores.csv").write_text("\n".join(lines) + "\n")
    table = tabulate_runs([run])
    assert [row.source for row in table.rows] == [str(run), "Accurate-WinCLIP", "paper"]
    assert table.rows[1].figures["auroc_sp"] == 90.4 and table.rows[2].figures["auroc_sp"] == 91.8


def test_bad_input(runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, other = runs[:2]
    again = small.parent / "mvtec" / ".." / "small"
    assert f"run {again} is named twice; name it once" in refused(capsys, small, again)
    assert "run's config" in refused(capsys, small, tmp_path / "none")
    changed = shutil.copytree(other, tmp_path / "changed")
    scores = (other / "scores.csv").read_text()
    (changed / "scores.csv").write_text("".join(line for line in scores.splitlines(True) if ",felt," not in line))
    error = refused(capsys, small, changed)
    assert f"two runs of small have other classes: only {small} has felt; make both with the same --classes" in error
    (changed / "scores.csv").write_text(scores.replace(",felt,", ",cloth,"))
    assert f"only {small} has felt; only {changed} has cloth;" in refused(capsys, small, changed)
    (changed / "scores.csv").write_text(scores.replace("felt/test/good/1.png", "felt/test/good/9.png"))
    assert f"{small} and {changed} have other images of small, in class felt; give" in refused(capsys, small, changed)
    (changed / "scores.csv").write_text(scores)
    results = (other / "results.csv").read_text()
    (changed / "results.csv").write_text(results.replace("mean", "median"))
    assert f"{changed / 'results.csv'} has no mean of 0-shot; make the run again" in refused(capsys, changed)
    (changed / "results.csv").write_text(results.replace("mean,", "mean,x"))
    assert f"{changed / 'results.csv'}, line 4: not results of a run; make the run again" in refused(capsys, changed)
    (changed / "results.csv").unlink()
    assert f"results {changed / 'results.csv'} cannot be read" in refused(capsys, changed)


def test_a_run_that_did_not_end_is_noted(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs[1], tmp_path / "part")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "finished": False}))
    assert f"{run} did not come to its end: means over 2 classes." in printed(capsys, run)
