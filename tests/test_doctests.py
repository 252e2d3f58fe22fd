"""The examples in the library's docstrings, on the demo backbone."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["winclip.model", "winclip.prompts", "winclip.results"])
def test_examples_run(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 1
    assert not outcome.failed
