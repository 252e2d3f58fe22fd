"""test.py --class_names, and the words that data sets bring along."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.items import DatasetIndex
from datasets.registry import DATA_SETS, is_only_a_number, words_for_prompts
from winclip.support.errors import InputError

Evaluate = Callable[..., int]


def index_of(*names: str) -> DatasetIndex:
    return DatasetIndex(Path("data"), {}, {name: [] for name in names})


def test_words_of_the_registry_and_of_a_file(tmp_path: Path) -> None:
    index = index_of("01", "02")
    assert words_for_prompts("parts", index, None) == {"01": "01", "02": "02"}
    assert words_for_prompts("btad", index, None) == dict.fromkeys(("01", "02"), "industrial product")
    path = tmp_path / "names.json"
    path.write_text('{"02": " wooden board "}')
    assert words_for_prompts("btad", index, path) == {"01": "industrial product", "02": "wooden board"}
    for entry in DATA_SETS.values():
        assert not any(is_only_a_number(entry.words.get(name, name)) for name in (*entry.classes, *entry.words))
    names = ("01", "Class1", "class_7", "pcb1", "bolt", "螺母")
    assert [name for name in names if is_only_a_number(name)] == ["01", "Class1", "class_7"]


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    for content, message in (
        ('{"03": "disc"}', "class 03"),
        ('{"01": " "}', "class 01 is called ' '"),
        ('{"01": 7}', "class 01 is called 7"),
        ('{"01": "a\\nb"}', "class 01"),
        ('["disc"]', "object"),
        ("{", "JSON"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=f"^--class_names {re.escape(str(path))}.*{message}"):
            words_for_prompts("btad", index_of("01", "02"), path)


def test_prompts_take_the_words_and_tables_the_names(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = (data / "meta.json").read_text()
    names, plain, worded, numbered = (tmp_path / name for name in ("names.json", "plain", "worded", "numbered"))
    assert evaluate(data, plain) == 0
    (data / "meta.json").write_text(meta.replace('"bolt"', '"07"'))
    assert evaluate(data, numbered) == 0
    assert "prompts call class 07 by its number" in (numbered / "log.txt").read_text()
    names.write_text('{"07": "bolt"}')
    assert evaluate(data, worded, "--class_names", str(names)) == 0
    plain_scores, words_scores, number_scores = (
        (folder / "scores.csv").read_text().replace(",07,", ",bolt,").splitlines()
        for folder in (plain, worded, numbered)
    )
    assert sorted(words_scores) == sorted(plain_scores) != sorted(number_scores)
    assert "| 07 " in (worded / "tables.md").read_text()
    config = json.loads((worded / "config.json").read_text())
    assert config["class_names"] == {"07": "bolt", "felt": "felt"}
    assert config["options"]["class_names"] == str(names)
    capsys.readouterr()
    names.write_text(json.dumps({"07": "bolt " * 90}))
    assert evaluate(data, worded, "--class_names", str(names)) == 2
    assert "77" in capsys.readouterr().err
