"""The text side and its cache on disk."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F

from winclip.network.clip import Clip
from winclip.network.clip_backbone import ClipBackbone
from winclip.prompts import PAPER, REFERENCE, PromptSet
from winclip.text import class_embeddings


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts in each call of the text tower."""
    counts: list[int] = []
    original = Clip.encode_text

    def count(self: Clip, tokens: torch.Tensor) -> torch.Tensor:
        counts.append(len(tokens))
        return original(self, tokens)

    monkeypatch.setattr(Clip, "encode_text", count)
    return counts


@pytest.mark.parametrize("prompts", [REFERENCE, PAPER])
def test_embeddings_are_means_over_every_prompt_at_full_context(backbone: ClipBackbone, prompts: PromptSet) -> None:
    expected = []
    for texts in (prompts.normal("metal_nut"), prompts.anomalous("metal_nut")):
        each = backbone.clip.encode_text(open_clip.tokenize(texts))
        expected.append(F.normalize((F.normalize(each, dim=-1) if prompts.normalise_each else each).mean(dim=0), dim=0))
    torch.testing.assert_close(class_embeddings(backbone, "metal_nut", prompts), torch.stack(expected))


def test_a_repeated_prompt_is_encoded_once(backbone: ClipBackbone, encoded: list[int]) -> None:
    class_embeddings(backbone, "bolt", REFERENCE)
    assert sum(encoded) == 11 * 20


def test_cache_gives_the_same_bytes_without_encoding(
    backbone: ClipBackbone, tmp_path: Path, encoded: list[int]
) -> None:
    fresh = class_embeddings(backbone, "bolt", REFERENCE, tmp_path)
    encoded.clear()
    assert torch.equal(class_embeddings(backbone, "bolt", REFERENCE, tmp_path), fresh)
    assert not encoded
    for other in (("nut", REFERENCE), ("bolt", PAPER)):
        class_embeddings(backbone, *other, tmp_path)
        assert encoded
        encoded.clear()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_entry_is_computed_again_and_a_cache_that_cannot_be_written_passed_over(
    backbone: ClipBackbone, tmp_path: Path
) -> None:
    fresh = class_embeddings(backbone, "bolt", REFERENCE, tmp_path)
    (entry,) = tmp_path.iterdir()
    content = entry.read_bytes()
    for damaged in (content[:-9], b"", b"no tensors"):
        entry.write_bytes(damaged)
        assert torch.equal(class_embeddings(backbone, "bolt", REFERENCE, tmp_path), fresh)
        assert entry.read_bytes() == content
    assert torch.equal(class_embeddings(backbone, "bolt", REFERENCE, entry / "cache"), fresh)
