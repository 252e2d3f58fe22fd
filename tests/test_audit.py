"""The list of packages, and what is asked about them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import audit

# Answers as pip-audit does: the service knows one package, and one advisory for it.
PROGRAM = """#!{python}
import json, re, sys
names = [line.split("==")[0] for line in open(sys.argv[sys.argv.index("--requirement") + 1])]
known = {known}
answers = [
    {{"name": name, "vulns": [{{"id": "PYSEC-1"}}] if name == "numpy" else []}}
    if name in known else {{"name": name, "skip_reason": "not found"}} for name in names
]
print(json.dumps({{"dependencies": answers}}))
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, known: list[str]) -> None:
    program = folder / "pip-audit"
    program.write_text(PROGRAM.format(python=sys.executable, known=json.dumps(known)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_dependencies_have_versions_and_licences() -> None:
    plain = audit.installed_dependencies("winclip")
    assert {"torch", "numpy", "pillow", "open-clip-torch", "jinja2", "markupsafe"} <= set(plain)
    assert not {"winclip", "gradio", "pytest"} & set(plain)
    more = audit.installed_dependencies("winclip", ["dev"])
    assert {"pytest", "pluggy"} <= set(more)
    assert "BSD" in audit.licence(plain["numpy"]) and "MIT" in audit.licence(more["pytest"])


def test_advisories_are_listed_and_silence_is_no_good_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audit"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main() == 0
    assert "advisories are unknown: pip-audit is not on the PATH" in capsys.readouterr().out
    install(tmp_path, monkeypatch, [])
    assert audit.main() == 0
    assert "advisories are unknown: its service does not answer" in capsys.readouterr().out
    install(tmp_path, monkeypatch, ["numpy", *audit.installed_dependencies("winclip")][:3])
    assert audit.main() == 1
    shown = capsys.readouterr().out
    assert "3 of them asked about: 1 with a known advisory" in shown
    assert next(line for line in shown.splitlines() if line.startswith("| numpy")).split("|")[4].strip() == "PYSEC-1"
