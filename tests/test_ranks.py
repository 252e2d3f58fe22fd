"""Runs of several ranks: the files equal those of one process, a rank dies, or ranks do not match."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.ranks import Ranks, joined_ranks, own_device
from tests.conftest import ROOT
from tests.kills import contents
from tests.tiny import CONFIG
from winclip.network.linear import linear_rates
from winclip.pictures.reading import usable_cores
from winclip.support.command_line import ModelOptions, Terminated
from winclip.support.errors import InputError

Evaluate = Callable[..., int]
OPTIONS = ["--k_shot", "0", "1", "3", "--seed", "3", "4", "--batch_size", "1", "--save_maps", "--report"]
OPTIONS += ["--skip_unreadable", "--intervals"]

# A run in which one rank is killed, sees other data or runs with other options; it saves after every batch.
DISTURBED = """
import os, runpy, signal, sys
import evaluation.parts, evaluation.scoring

evaluation.parts.SECONDS = 0.0
kind, rank, score, scored = sys.argv.pop(1), os.environ["RANK"], evaluation.scoring.score_batch, []

def score_until_killed(*arguments):
    if len(scored) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    scored.append(True)
    return score(*arguments)

if kind == "killed" and rank == "1":
    evaluation.scoring.score_batch = score_until_killed
if kind == "other data" and rank == "1":
    sys.argv[sys.argv.index("--data_path") + 1] += "-copy"
if kind == "other options" and rank == "1":
    sys.argv += ["--temperature", "0.1"]
sys.argv[0] = "test.py"
runpy.run_path("test.py", run_name="__main__")
"""


@pytest.fixture
def all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process uses as many threads as cores, and other ranks read its cached measurements."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    linear_rates.cache_clear()
    yield
    linear_rates.cache_clear()
    torch.set_num_threads(threads)


@pytest.fixture
def odd_data(data: Path) -> Path:
    """Classes of 5 and 2 test images, and one unreadable image of either kind."""
    meta = json.loads((data / "meta.json").read_text())
    del meta["test"]["bolt"][0]
    meta["test"]["felt"] = meta["test"]["felt"][-2:]
    (data / "meta.json").write_text(json.dumps(meta))
    for name in ("bolt/train/good/3.png", "bolt/test/scratch/0.png"):
        (data / name).write_bytes(b"damaged")
    return data


def torchrun(count: int, program: list[str], data: Path, save: Path, weights: Path) -> subprocess.CompletedProcess[str]:
    places = ["--dataset", "small", "--data_path", str(data), "--save_path", str(save)]
    model = ["--model", str(CONFIG), "--pretrained", str(weights), "--device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    return subprocess.run(
        [*launch, *program, *places, *model, *OPTIONS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def left_out(folder: Path) -> list[str]:
    """Images and figures that the log reports as left out, in order."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [line.split(" ", 2)[2] for line in lines if "left out" in line]


@pytest.mark.usefixtures("all_cores")
def test_killed_rank_ends_the_run_and_others_finish_it_with_the_files_and_log_of_one_process(
    evaluate: Evaluate, odd_data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(odd_data, tmp_path / "one", *OPTIONS) == 0
    printed = capsys.readouterr().out
    save, program = tmp_path / "several", tmp_path / "disturbed.py"
    program.write_text(DISTURBED)
    killed = torchrun(2, [str(program), "killed"], odd_data, save, checkpoint)
    assert killed.returncode == 1 and "SIGKILL" in killed.stderr
    assert "another rank" in killed.stderr and "the same command goes on" in killed.stderr
    assert list((save / "scores").rglob("*.safetensors"))
    done = torchrun(3, ["test.py"], odd_data, save, checkpoint)
    assert done.returncode == 0, done.stderr
    assert " of 7 test images scored already" in (save / "log.txt").read_text()
    assert contents(save) == contents(tmp_path / "one")
    assert {"maps/3shot-seed4/felt.npz", "report.html", "intervals.csv", "types.csv"} < contents(save).keys()
    assert done.stdout == printed
    assert left_out(save) == left_out(tmp_path / "one") != []
    configs = [json.loads((folder / "config.json").read_text()) for folder in (save, tmp_path / "one")]
    assert configs[0]["unreadable_images"] == configs[1]["unreadable_images"] != []


@pytest.mark.parametrize(
    ("kind", "named"), [("other data", "rank 1 sees other images"), ("other options", "rank 1 runs with another temp")]
)
def test_ranks_that_do_something_else_are_refused_in_one_line(
    odd_data: Path, checkpoint: Path, tmp_path: Path, kind: str, named: str
) -> None:
    # With other file times, which do not count.
    copy = shutil.copytree(odd_data, odd_data.with_name("data-copy"), copy_function=shutil.copyfile)
    meta = json.loads((copy / "meta.json").read_text())
    meta["test"]["felt"].reverse()
    (copy / "meta.json").write_text(json.dumps(meta))
    program = tmp_path / "disturbed.py"
    program.write_text(DISTURBED)
    done = torchrun(2, [str(program), kind], odd_data, tmp_path / "out", checkpoint)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert named in error


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 8, 13])
def test_shares_make_the_whole_in_order(count: int, size: int) -> None:
    items = list(range(size))
    shares = [Ranks(number, count).share(items) for number in range(count)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert own_device("auto", 1, 2) == "auto"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [own_device(name, 1, 2) for name in ("auto", "cuda", "cpu", "mps")] == ["cuda:1", "cuda:1", "cpu", "mps"]
    with pytest.raises(InputError, match="--nproc_per_node 2"):
        own_device("cuda", 0, 3)
    with pytest.raises(InputError, match="--device cuda:1 is one GPU for 2 ranks"):
        own_device("cuda:1", 0, 2)


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The second of two ranks as torchrun starts it, but alone; returns calls of the group and of sleep."""
    happened: list[str] = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "2" if name.endswith("SIZE") else "1")
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: happened.append("joined"))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: happened.append("left"))
    monkeypatch.setattr("time.sleep", lambda seconds: happened.append(f"waits {seconds} s"))
    heard = signal.getsignal(signal.SIGTERM)
    handlers = logging.getLogger("winclip").handlers[:]
    yield happened
    signal.signal(signal.SIGTERM, heard)
    logging.getLogger("winclip").handlers[:] = handlers


def test_the_first_rank_that_fails_says_why_and_the_others_wait_for_it(
    second_rank: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with joined_ranks() as ranks:
        assert (ranks.number, ranks.count, ranks.first) == (1, 2, False)
    assert second_rank == ["joined", "left"]
    for failed, own, expected in (([True, True], True, SystemExit), ([False, True], True, InputError)):
        monkeypatch.setattr(Ranks, "_meet", lambda self, own, failed=failed: failed)
        with pytest.raises(expected), joined_ranks() as ranks, ranks.together():
            if own:
                raise InputError("its own reason")
    assert second_rank[2:] == ["joined", "waits 30 s", "joined"]


def test_a_rank_that_is_stopped_or_cannot_reach_the_others_ends(
    second_rank: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended, joined_ranks():
        raise Terminated
    assert ended.value.code == 128 + signal.SIGTERM
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(Terminated, match="another rank has ended"), joined_ranks():
        raise Terminated
    with pytest.raises(KeyboardInterrupt), joined_ranks():
        raise KeyboardInterrupt

    def unreachable(*_: object, **__: object) -> None:
        raise RuntimeError("connection refused\nmore")

    monkeypatch.setattr("torch.distributed.all_gather", unreachable)
    for number, expected in ((0, "connection refused"), (1, "another rank ended early")):
        with pytest.raises(InputError, match=expected), Ranks(number, 2).together():
            pass
    monkeypatch.setattr("torch.distributed.init_process_group", unreachable)
    with pytest.raises(InputError, match=r"cannot reach each other \(connection refused\)"), joined_ranks():
        pass


@pytest.mark.parametrize("local_number", [0, 1])
def test_one_rank_of_a_machine_loads_before_the_others_with_all_threads(
    local_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, turns = torch.get_num_threads(), list[str]()

    model: Any = object()

    def load(options: ModelOptions) -> Any:
        turns.append(f"loads on {options.device} with {torch.get_num_threads()} threads")
        return model

    monkeypatch.setattr("winclip.pictures.reading.usable_cores", lambda: 4)
    monkeypatch.setattr(ModelOptions, "load", load)

    def meet(ranks: Ranks, failed: bool) -> list[bool]:
        turns.append("meets")
        return [failed] * ranks.count

    monkeypatch.setattr(Ranks, "_meet", meet)
    try:
        assert Ranks(local_number, 2, local_number, 2).load(ModelOptions(device="cpu")) is model
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    loads = "loads on cpu with 4 threads"
    assert turns == ([loads, "meets", "meets"] if local_number == 0 else ["meets", loads, "meets"])
