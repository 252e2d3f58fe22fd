"""Which linear layers the CPU runs: measured, remembered, and the same numbers either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny import stages, tiny_backbone
from winclip.embeddings import Embeddings
from winclip.network import linear
from winclip.network.clip_backbone import ClipBackbone
from winclip.network.linear import Rates, linear_rates, packed_linear


@pytest.fixture(autouse=True)
def kernels_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for the measurements of a test; none is remembered after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    linear_rates.cache_clear()  # the name imported here stays the real one
    yield tmp_path / "winclip" / "kernels"
    linear_rates.cache_clear()


def load(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, full: Rates, half: Rates | None = None) -> ClipBackbone:
    """The tiny model with given measurements, in fp32 or, with ``half``, in bf16."""

    def rates(width: int, hidden: int, dtype: torch.dtype) -> Rates:
        return full if half is None or dtype == torch.float32 else half

    for module in ("clip_backbone", "linear"):
        monkeypatch.setattr(f"winclip.network.{module}.linear_rates", rates)
    return tiny_backbone(checkpoint.parent, precision="fp32" if half is None else "bf16")


def test_packed_weights_have_to_be_faster_by_a_margin() -> None:
    assert Rates(plain=100, packed=104).kernels == "plain"
    assert Rates(plain=100, packed=106).kernels == "packed"
    assert Rates(plain=172, packed=146).best == 172
    assert Rates(plain=100, packed=0).kernels == "plain"


def test_both_kernels_give_the_reference_numbers(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(stages()["preprocessed"][:3])
    found: list[Embeddings] = []
    for kernels, rates in (("plain", Rates(2, 1)), ("packed", Rates(1, 2))):
        backbone = load(checkpoint, monkeypatch, rates)
        assert backbone.kernels == kernels
        found.append(backbone.encode(images))
        for name, part in zip(("cls", "large", "mid", "patch"), (found[-1].cls, *found[-1].windows, found[-1].patch)):
            expected = torch.from_numpy(stages()[name])
            assert float((part - expected).abs().max() / expected.abs().max()) < 1e-4, (kernels, name)
    if packed_linear(torch.ones(64, 64), torch.zeros(64)) is not None:  # else both are plain
        assert not torch.equal(found[0].cls, found[1].cls), "both runs took the same kernels"


def test_a_measurement_is_remembered(kernels_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = linear_rates(64, 128, torch.float32)
    (entry,) = kernels_folder.iterdir()
    monkeypatch.setattr(linear, "_measure", lambda *_: pytest.fail("measured again"))
    linear_rates.cache_clear()  # as in another process
    assert linear_rates(64, 128, torch.float32) == first
    for damaged in ("", "{}", '{"plain": "x", "packed": 1}', "[1, 2]"):
        entry.write_text(damaged)
        monkeypatch.setattr(linear, "_measure", lambda *_: Rates(5, 6))
        linear_rates.cache_clear()
        assert linear_rates(64, 128, torch.float32) == Rates(5, 6)


def test_without_a_cache_folder_a_process_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    seen: list[str] = []

    def measure(*_: object) -> Rates:
        # The user's precision does not decide.
        seen.append(torch.get_float32_matmul_precision())
        return Rates(1, 2)

    monkeypatch.setattr(linear, "_measure", measure)
    try:
        torch.set_float32_matmul_precision("medium")
        assert linear_rates(64, 128, torch.float32) is linear_rates(64, 128, torch.float32)
        assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "medium")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_other_limits_of_the_processor_are_measured_anew(kernels_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear_rates(64, 128, torch.float32)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    linear_rates.cache_clear()
    linear_rates(64, 128, torch.float32)
    assert len(list(kernels_folder.iterdir())) == 2


@pytest.mark.parametrize(("half", "warned"), [(Rates(20, 18), True), (Rates(400, 430), False)])
def test_a_half_precision_that_is_slower_is_warned_of(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str], half: Rates, warned: bool
) -> None:
    load(checkpoint, monkeypatch, Rates(172, 146), half)
    assert [message.split(" as ")[0] for message in logged] == ["bfloat16 is 8.6 times"] * warned
