"""Tries the project with several versions of Python, each with the oldest and newest packages that its ranges allow.

    python -m scripts.try_versions                                  # all that can be had here, minutes each
    python -m scripts.try_versions --python 3.12 --ends oldest

Makes an environment for each with uv (`python -m pip install uv`), from wheels alone, runs a quick selection of the
tests in it, removes it, and prints a table. Status 1: one failed; a Python that is not on this machine is no failure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
TESTS = ("images", "metrics", "model", "parity", "run", "text", "weights")
SHOWN = ("torch", "numpy", "pillow", "open_clip_torch", "scikit-learn")
INSTALL_SECONDS, TEST_SECONDS = 900, 600


def find_python(version: str) -> str | None:
    """An interpreter of a version, on the PATH or of pyenv; a name alone can be one that does not start."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = shutil.which(f"python{version}")
    for program in [*([named] if named else []), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]:
        if output([program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], 20)[1].strip() == version:
            return program
    return None


def output(command: list[str], seconds: float) -> tuple[int, str]:
    """Exit status of a command, 124 if it took too long, and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    # uv knows its own certificates alone.
    environment.setdefault("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, f"took more than {seconds:.0f} s"
    return done.returncode, done.stdout + done.stderr


def try_one(uv: str, program: str, resolution: str) -> tuple[bool, list[str]]:
    """Whether the tests pass, and the cells of the table: versions, outcome, seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        python = f"{folder}/bin/python"
        requirements = ["--requirement", "requirements.txt", "pytest>=8.0"]
        wheels = ["--quiet", "--only-binary", ":all:", "--resolution", resolution]
        for command in (
            [uv, "venv", "--quiet", "--python", program, folder],
            [uv, "pip", "install", "--python", python, *wheels, *requirements],
        ):
            status, text = output(command, INSTALL_SECONDS)
            if status:
                return False, ["-"] * len(SHOWN) + [f"not installed: {' '.join(text.split())[:160]}", "-"]
        versions = f"from importlib.metadata import version; print(*map(version, {SHOWN}))"
        shown = output([python, "-c", versions], 60)[1].split()
        tests = [f"tests/test_{name}.py" for name in TESTS]
        status, text = output([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], TEST_SECONDS)
        failed = re.findall(r"^(?:FAILED|ERROR) .*", text, re.MULTILINE)
        print("\n".join(failed[:10]), file=sys.stderr)
        return not status, [*shown, text.strip().splitlines()[-1].strip("= "), f"{time.monotonic() - started:.0f}"]


def main() -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="V", help=f"({' '.join(PYTHONS)})")
    parser.add_argument("--ends", nargs="+", default=list(ENDS), choices=ENDS, help="of the ranges (both)")
    options = parser.parse_args()
    uv = shutil.which("uv")
    if uv is None:
        parser.exit(2, "error: uv is not on the PATH; install it with: python -m pip install uv\n")
    rows, passed = [], True
    for version in options.python:
        program = find_python(version)
        for end in options.ends:
            if program is None:
                rows.append([version, end, *["-"] * len(SHOWN), "this Python is not on this machine", "-"])
                continue
            good, cells = try_one(uv, program, ENDS[end])
            passed &= good
            rows.append([version, end, *cells])
            print(" ".join(rows[-1]), file=sys.stderr)
    print(tabulate(rows, ["Python", "packages", *SHOWN, "tests", "seconds"], tablefmt="pipe", disable_numparse=True))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
