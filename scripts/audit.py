"""Lists every package that this project brings: version and licence, and whether an advisory is known for it.

    python -m scripts.audit                             # with the extras: --extra app export scale dev

Licences are what the installed packages say of themselves. Advisories are asked for with pip-audit, if it is on the
PATH (`python -m pip install pip-audit`); where its service does not answer, the output says so. Status 1: one is known.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tabulate import tabulate

SECONDS = 300


def installed_dependencies(package: str, extras: Sequence[str] = ()) -> dict[str, metadata.Distribution]:
    """Everything that a package needs, and what that needs, as far as it is installed, by name."""
    found: dict[str, metadata.Distribution] = {}
    todo = [(package, tuple(extras))]
    seen = set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[canonicalize_name(name)] = distribution
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                todo.append((needed.name, tuple(sorted(needed.extras))))
    found.pop(canonicalize_name(package), None)
    return dict(sorted(found.items()))


def licence(distribution: metadata.Distribution) -> str:
    """What a package says of its licence: an expression, else its classifiers, else the first line of a text."""

    def told(field: str) -> list[str]:
        return distribution.metadata.get_all(field) or []

    classifiers = [entry.split(" :: ")[-1] for entry in told("Classifier") if entry.startswith("License ::")]
    lines = [text.strip().splitlines()[0][:60] for text in told("License") if text.strip()]
    return ", ".join(told("License-Expression") or classifiers or lines) or "not stated"


def audit(versions: dict[str, str]) -> dict[str, str]:
    """What pip-audit knows: by package the advisories, or nothing for a package without one.

    Packages that it could not ask about are left out; that is all of them where the service does not answer.
    """
    program = shutil.which("pip-audit")
    if program is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        command = [program, "--requirement", str(listing), "--no-deps", "--disable-pip", "--format", "json"]
        command += ["--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
            return {}
    return {
        canonicalize_name(answer["name"]): ", ".join(found["id"] for found in answer["vulns"])
        for answer in answers
        if "skip_reason" not in answer
    }


def main() -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", nargs="+", default=[], metavar="E", help="of pyproject.toml, such as app (none)")
    options = parser.parse_args()
    found = installed_dependencies("winclip", options.extra)
    # A local part, as in 2.9.0+cpu, is no release of its own.
    versions = {name: distribution.version.split("+")[0] for name, distribution in found.items()}
    # One package tells whether the service answers, before it is asked about all of them.
    answers = audit(versions) if audit(dict(list(versions.items())[:1])) else {}
    rows = [
        [name, distribution.version, licence(distribution), (answers[name] or "none") if name in answers else "unknown"]
        for name, distribution in found.items()
    ]
    print(tabulate(rows, ["package", "version", "licence", "advisories"], tablefmt="pipe", disable_numparse=True))
    known = sum(bool(advisories) for advisories in answers.values())
    if answers:
        print(f"\n{len(found)} packages, {len(answers)} of them asked about: {known} with a known advisory")
    else:
        reason = "pip-audit is not on the PATH" if shutil.which("pip-audit") is None else "its service does not answer"
        print(f"\n{len(found)} packages; advisories are unknown: {reason}")
    return int(known > 0)


if __name__ == "__main__":
    sys.exit(main())
