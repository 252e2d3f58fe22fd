"""What a run with the demo backbone and cached text may import: little, because imports dominate its start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_data

# Of this project; needed by torch's tensors, images, weights, drawing, tables, progress bars and locks; part of those.
ALLOWED = {
    "datasets", "evaluation", "winclip",
    "numpy", "PIL", "safetensors", "cv2", "tabulate", "tqdm", "filelock",
    "cython_runtime", "wcwidth",
}  # fmt: skip

# The compiler of torch takes half as long to import as torch itself, and is never used here.
COMPILER = {"torch._dynamo", "torch._inductor"}

SCRIPT = """
import json, runpy, sys
import torch
before = set(sys.modules)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0, ended.code
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def imported(*command: str) -> set[str]:
    """The modules that a command imports beyond those of ``import torch``."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("entry_point", ["test.py", "predict.py"])
def test_start_imports_nothing_but_what_it_needs(
    entry_point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = make_data(tmp_path / "data")
    command = [entry_point, "--model", "demo-vit-240", "--device", "cpu", "--save_path", str(tmp_path / "out")]
    if entry_point == "test.py":
        command += ["--data_path", str(data), "--classes", "felt", "--k_shot", "0", "1"]
    else:
        command += ["--class_name", "felt", str(data / "felt" / "test" / "good")]
    first = imported(*command)
    # The first run embeds the prompts, which takes a package of open_clip's tokenizer: the list below can fail.
    assert "ftfy" in first
    assert not first & {*COMPILER, "open_clip", "torchvision"}
    modules = imported(*command)
    extra = {name.split(".")[0] for name in modules if not name.startswith("_")}
    extra -= {*ALLOWED, *sys.stdlib_module_names, "torch"}
    assert not extra, f"imported without need: {', '.join(sorted(extra))}; import it in the function that uses it"
    assert not modules & COMPILER, f"imported without need: {', '.join(sorted(modules & COMPILER))}"
