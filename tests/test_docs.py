"""README and docs: every link leads somewhere, every command and option exists, and the README stays short."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = 1300
# Shell scripts that pass their options on.
PASS_ON = {"zero_shot.sh": "test.py", "few_shot.sh": "test.py", "benchmarks/benchmark_peers.sh": ""}
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
_INLINE = re.compile(r"`((?:\w+=\S+ )*(?:python|bash) [^`]+)`")


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str, folder: Path) -> list[str]:
    """Links to files or headings that are not there; links to other sites are not followed."""
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


def commands(page: str) -> list[list[str]]:
    """The words of every python and bash command of a page, without assignments before it."""
    lines = [
        line
        for kind, block in _CODE.findall(page)
        if kind == "bash"
        for line in block.replace("\\\n", " ").splitlines()
    ]
    found = [shlex.split(line, comments=True) for line in [*lines, *_INLINE.findall(page)]]
    cut = [words[next((n for n, word in enumerate(words) if "=" not in word), 0) :] for words in found]
    return [words for words in cut if words and words[0] in ("python", "bash")]


@cache
def help_text(*command: str) -> str:
    """What ``--help`` prints, here in this process, which has imported what most programs import."""
    path, rest = ROOT / command[0], command[1:]
    if command[0] == "-m":
        path, rest = ROOT / f"{command[1].replace('.', '/')}.py", command[2:]
        path = path if path.is_file() else path.with_suffix("") / "__main__.py"
    if not path.is_file():
        given = [sys.executable, *command, "--help"]
        done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""
    said, status = io.StringIO(), 1
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [str(path), *rest, "--help"])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
    return said.getvalue() if status == 0 else ""


def trouble(words: list[str]) -> str:
    """What is wrong with a command, or nothing."""
    if words[0] == "bash":
        if not (ROOT / words[1]).is_file():
            return f"{words[1]} does not exist"
        shown = help_text(PASS_ON[words[1]]) if PASS_ON.get(words[1]) else ""
    elif words[1:3] == ["-m", "pip"]:
        return ""
    else:
        program = words[1:3] if words[1] == "-m" else words[1:2]
        if program == ["-m", "datasets"]:
            program = words[1:4]
        shown = help_text(*program)
        if "usage:" not in shown:
            return f"{' '.join(program)} cannot be started"
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    unknown = [option for option in options if option != "--help" and not re.search(rf"{option}\b", shown)]
    return f"{words[1]} does not know {unknown}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    found = [(words, trouble(words)) for words in commands(page.read_text(encoding="utf-8"))]
    assert [(" ".join(words), problem) for words, problem in found if problem] == []


@pytest.mark.parametrize(
    "program",
    [
        "test.py",
        "predict.py",
        "app.py",
        "scripts/export.py",
        "-m winclip.commands.explain",
        "-m scripts.score_collection",
    ],
)
def test_every_option_is_described(program: str) -> None:
    options = set(re.findall(r"(?<![\w-])--\w+", help_text(*program.split()))) - {"--help"}
    page = "scale.md" if "collection" in program else "usage.md"
    described = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert len(options) >= 8
    assert sorted(option for option in options if f"`{option}" not in described) == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


def test_wrong_pages_are_found() -> None:
    page = "# One heading\n[a](nowhere.md) [b](#one-heading) [c](#no-heading) ![d](docs/usage.md#nothing)\n"
    assert broken_links(page, ROOT) == ["nowhere.md", "#no-heading", "docs/usage.md#nothing"]
    block = "```bash\nA=1 bash nothing.sh\npython -m demo.nothing\npython test.py --k_shot 0 --colour red  # --x\n```\n"
    wrong = [trouble(words) for words in commands(block + "and `bash zero_shot.sh --report --clour`")]
    assert wrong == [
        "nothing.sh does not exist",
        "-m demo.nothing cannot be started",
        "test.py does not know ['--colour']",
        "zero_shot.sh does not know ['--clour']",
    ]
