"""winclip check: known numbers, the speed's table, and the exit status."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

import winclip
from tests.tiny import CONFIG
from winclip import commands
from winclip.commands import check
from winclip.network.backbone import Backbone
from winclip.network.devices import PRECISIONS


def test_known_numbers_are_met_in_fp32_and_nearly_in_bf16(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--device", "cpu", "--precision", "fp32", "bf16", "--no_speed"]) == 0
    printed = capsys.readouterr().out
    rows = {
        name: (float(exact), float(half))
        for name, exact, half in re.findall(r"(\w+) +\| (\S+) +\| (\S+) +\|", printed)[1:]
    }
    assert len(rows) == 23 and {"text_features", "cls", "patch", "few2_assoc_mid"} <= rows.keys()
    assert max(exact for exact, _ in rows.values()) < 1e-5
    assert all(exact < half < 0.05 for exact, half in rows.values())
    assert winclip.__version__ in printed and torch.__version__ in printed and " cpu" in printed


class CudaInName(TorchFunctionMode):
    """Tensors for CUDA stay on the CPU, so that they hold numbers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.pin_memory:
            return args[0]
        given = tree_map_only(torch.device, lambda device: torch.device("cpu"), (args, kwargs or {}))
        return func(*given[0], **given[1])


def test_every_precision_is_checked_on_cuda(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, result in (
        ("device_count", 1),
        ("get_device_name", "Card"),
        ("get_device_capability", (8, 0)),
        ("reset_peak_memory_stats", None),
        ("max_memory_allocated", 7e6),
    ):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, result=result: result)
    monkeypatch.setattr(check, "DEFAULT_MODEL", str(CONFIG))
    monkeypatch.setattr(check, "_SECONDS", 0.0)
    monkeypatch.setattr(check, "BATCHES", (1, 3))
    with CudaInName():
        assert check.main(["--device", "cuda"]) == 0
    printed = capsys.readouterr().out
    assert "on cuda:0: Card" in printed
    (line,) = re.findall(r"\| zero_map +\|(.*)\|", printed)
    fp32, tf32, bf16, fp16 = map(float, line.split("|"))
    assert fp32 <= tf32 < 0.05 and fp32 < fp16 < bf16 < 0.05
    found = re.findall(r"\| (\w+) +\| (\d+) +\| \S+ +\| 7 +\|", printed)
    assert found == [(precision, batch) for precision in PRECISIONS for batch in ("1", "3")]


@pytest.mark.parametrize("wrong", [2e-5, float("nan")])
def test_status_is_1_where_a_score_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    compute = check.computed_stages

    def computed(backbone: Backbone) -> dict[str, torch.Tensor]:
        stages = compute(backbone)
        stages["few1_image_score"][1] += wrong
        return stages

    monkeypatch.setattr(check, "computed_stages", computed)
    assert check.main(["--device", "cpu", "--precision", "fp32", "--no_speed"]) == 1
    assert "few1_image_score off" in capsys.readouterr().out


def test_what_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--device", "cuda:99"]) == 2
    assert check.main(["--device", "cpu", "--precision", "tf32"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "cuda:99" in errors[0] and "tf32" in errors[1]


def test_speed_of_every_batch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "DEFAULT_MODEL", str(CONFIG))
    monkeypatch.setattr(check, "_SECONDS", 0.0)
    assert check.main(["--device", "cpu", "--precision", "fp32"]) == 0
    rows = re.findall(r"fp32 +\| (\d+) +\| (\S+) +\| (\S+) +\|", capsys.readouterr().out)
    assert [batch for batch, _, _ in rows] == ["1", "8", "32"]
    assert all(float(rate) > 0 and float(memory) > 50 for _, rate, memory in rows)


def test_the_command_names_its_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, status in (("--help", 0), ("--version", 0), ("nonsense", 2), ("check --device cuda:99", 2)):
        monkeypatch.setattr("sys.argv", ["winclip", *arguments.split()])
        assert commands.main() == status
    printed = capsys.readouterr()
    assert all(f"  {name} " in printed.out for name in commands.COMMANDS)
    assert f"winclip {winclip.__version__}\n" in printed.out
    assert "nonsense" in printed.err and "cuda:99" in printed.err
