"""README and docs: every link leads somewhere, every command and option exists, and they stay short."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT
from winclip import commands as winclip_command
from winclip.metrics.formulas import REGISTRY

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
README_WORDS, DOCS_WORDS, CONTRIBUTING_WORDS = 900, 9_000, 600
# Shell scripts that pass their options on.
PASS_ON = {"zero_shot.sh": "test.py", "few_shot.sh": "test.py"}
PROGRAMS = ("python", "bash", "winclip")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`((?:\w+=\S+ )*(?:python|bash|winclip) [^`]+)`")


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as links spell them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str, folder: Path) -> list[str]:
    """Links to missing files or headings; links to other sites are not followed."""
    broken = []
    for link in _LINK.findall(_CODE.sub("", page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = folder / name
        text = target.read_text(encoding="utf-8") if name.endswith(".md") and target.is_file() else page
        if (name and not target.exists()) or (anchor and anchor not in anchors(text)):
            broken.append(link)
    return broken


def called(page: str) -> list[list[str]]:
    """The words of every command of a page that starts one of ``PROGRAMS``, without assignments before it."""
    blocks = [block for kind, block in _CODE.findall(page) if kind == "bash"]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in [*lines, *_INLINE.findall(page)]]
    cut = [words[next((n for n, word in enumerate(words) if "=" not in word), 0) :] for words in found]
    return [words for words in cut if words and words[0] in PROGRAMS]


@cache
def help_text(*command: str) -> str:
    """The output of ``--help``, in this process, which has already imported most modules."""
    said, status = io.StringIO(), 1
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        try:
            if command[0] == "winclip":
                patch.setattr("sys.argv", [*command, "--help"])
                status = winclip_command.main()
            else:
                path, rest = ROOT / command[0], command[1:]
                if command[0] == "-m":
                    path, rest = ROOT / f"{command[1].replace('.', '/')}.py", command[2:]
                    path = path if path.is_file() else path.with_suffix("") / "__main__.py"
                patch.setattr("sys.argv", [str(path), *rest, "--help"])
                if path.is_file():
                    runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
    return said.getvalue() if status == 0 else ""


def trouble(words: list[str]) -> str:
    """What is wrong with a command, or nothing."""
    options = [word.split("=")[0] for word in words if word.startswith("--") and word != "--help"]
    if words[0] == "bash":
        if not (ROOT / words[1]).is_file():
            return f"{words[1]} does not exist"
        shown = help_text(PASS_ON[words[1]]) if words[1] in PASS_ON else (ROOT / words[1]).read_text(encoding="utf-8")
    elif words[1:3] == ["-m", "pip"] or words[:2] == ["winclip", "COMMAND"]:
        return ""
    else:
        length = 3 if words[1:3] == ["-m", "datasets"] else 2 if words[0] == "winclip" or words[1] == "-m" else 1
        program = words[:2] if words[0] == "winclip" else words[1 : 1 + length]
        if words[0] == "winclip" and program[1] in winclip_command.COMMANDS and not options:
            return ""
        shown = help_text(*program)
        if "usage:" not in shown:
            return f"{' '.join(program)} cannot be started"
    unknown = [option for option in options if not re.search(rf"{option}\b", shown)]
    return f"{words[1]} does not know {unknown}" if unknown else ""


@pytest.mark.parametrize("page", [*PAGES, CONTRIBUTING], ids=lambda page: page.name)
def test_links_lead_somewhere_and_commands_exist_with_their_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert broken_links(text, page.parent) == []
    found = [(" ".join(words), trouble(words)) for words in called(text)]
    assert [pair for pair in found if pair[1]] == []


def test_the_examples_of_the_command_can_be_called() -> None:
    shown = help_text("winclip")
    for command, (_, example) in winclip_command.COMMANDS.items():
        words = shlex.split(example)
        assert example in shown and words[:2] == ["winclip", command] and not trouble(words)
    assert max(map(len, shown.splitlines())) < 80


def shown(cell: nbformat.NotebookNode) -> set[tuple[str, ...]]:
    """The kinds of a cell's outputs; a kernel may split text over any number of them."""
    outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return {(output.output_type, *sorted(output.get("data", ()))) for output in outputs}


@pytest.mark.slow
def test_the_notebook_runs_and_holds_its_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert broken_links(text, NOTEBOOK.parent) == []
    assert called(text) and [trouble(words) for words in called(text) if trouble(words)] == []
    assert NOTEBOOK.stat().st_size < 1_000_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    stored = [shown(cell) for cell in code]
    assert ("display_data", "text/html", "text/plain") in set().union(*stored)
    # A cell that raises ends it.
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert [shown(cell) for cell in code] == stored


def test_docs_are_short() -> None:
    readme, contributing, *docs = (
        len(page.read_text(encoding="utf-8").split()) for page in (PAGES[0], CONTRIBUTING, *PAGES[1:])
    )
    assert readme <= README_WORDS
    assert contributing <= CONTRIBUTING_WORDS
    assert sum(docs) <= DOCS_WORDS


def test_the_readme_says_what_each_column_is() -> None:
    readme = " ".join(PAGES[0].read_text(encoding="utf-8").split())
    assert [metric.name for metric in REGISTRY if f"`{metric.name}` {metric.meaning}" not in readme] == []


def test_wrong_pages_are_found() -> None:
    page = "# One heading\n[a](nowhere.md) [b](#one-heading) [c](#no-heading) ![d](docs/test.md#nothing)\n"
    assert broken_links(page, ROOT) == ["nowhere.md", "#no-heading", "docs/test.md#nothing"]
    block = "```bash\nA=1 bash nothing.sh\npython -m demo.nothing\npython test.py --k_shot 0 --colour red  # --x\n```\n"
    wrong = [trouble(words) for words in called(block + "`bash zero_shot.sh --report --clour` and `winclip explian x`")]
    assert wrong == [
        "nothing.sh does not exist",
        "-m demo.nothing cannot be started",
        "test.py does not know ['--colour']",
        "zero_shot.sh does not know ['--clour']",
        "winclip explian cannot be started",
    ]
