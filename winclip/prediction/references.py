"""The part to inspect: its name, its prompts, and its good pictures or the memory made from them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from winclip.memory import read_memory
from winclip.model import WinCLIP
from winclip.prediction.options import Options, PartOptions
from winclip.prediction.pictures import list_pictures
from winclip.prediction.scoring import Whole
from winclip.prompts import PromptSet, load_prompt_set, parse_prompt_set, with_states
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, file_sha256
from winclip.variants import parse_variant

_log = logging.getLogger("winclip")
_CLONE = Path(__file__).resolve().parent.parent.parent
# In a clone beside its data sets, else in the cache folder.
_SAMPLE = _CLONE / "data" / "sample" if (_CLONE / "datasets").is_dir() else cache_folder("sample")
Some = TypeVar("Some", bound=PartOptions)


def without_shared(places: Sequence[str], pictures: Sequence[str], notes: list[str]) -> list[str]:
    """The reference pictures that the places name, without pictures that are to be scored; see ``list_pictures``."""
    if not places:
        return []
    listed = list_pictures(places, notes, "references")
    to_score = {os.path.realpath(path) for path in pictures}
    kept = [path for path in listed if os.path.realpath(path) not in to_score]
    if len(kept) < len(listed):
        _log.warning(
            "%d of %d references are among the pictures to score and are left out of the references%s",
            len(listed) - len(kept),
            len(listed),
            "" if kept else "; none is left, so the scores are zero-shot",
        )
    return kept


def with_sample(options: Some, references: bool = True) -> tuple[Some, Path]:
    """The options with a class of the included sample and its train images as references, and its test images' folder.

    Raises:
        InputError: if the sample has no such class, or cannot be drawn.
    """
    from winclip.demo.sample import CLASSES, make_sample

    name = options.class_name or next(iter(CLASSES))
    if name not in CLASSES:
        raise InputError(f"the sample has no class '{name}', only {', '.join(CLASSES)}; or name pictures")
    try:
        make_sample(_SAMPLE)
    except OSError as error:
        raise InputError(f"the sample cannot be drawn ({error})") from error
    own = options.reference or options.memory
    reference = options.reference if own or not references else (str(_SAMPLE / name / "train" / "good"),)
    return replace(options, class_name=name, reference=reference), _SAMPLE / name / "test"


def class_and_prompts(options: PartOptions) -> tuple[str, PromptSet]:
    """From the options or, where they are not given, from the memory; a memory of another model is refused early.

    Raises:
        InputError: if the memory does not fit, or the prompt set is unknown or malformed.
    """
    name, states = options.class_name, (options.normal_states, options.anomalous_states)
    named = parse_variant(options.model.variant).prompts
    prompts = with_states(load_prompt_set(options.prompt_set) if options.prompt_set else named, *states)
    if options.memory is not None:
        own_name, own = class_of_memory(options.memory, options.model.model)
        name, prompts = name or own_name, prompts if options.prompt_set or any(states) else own
    assert name is not None  # the options guarantee it
    return name, prompts


def class_of_memory(memory: Path, model: str) -> tuple[str, PromptSet]:
    """The class name and prompts that a memory was made with; a memory of another model is refused early.

    Args:
        memory: the file.
        model: the option that names the model.

    Raises:
        InputError: if the memory cannot be read or does not fit.
    """
    _, made_with = read_memory(memory)
    named = Path(model).name if model.endswith(".json") else model
    if made_with.get("model") != named:
        raise InputError(
            f"memory {memory} does not fit: model is {made_with.get('model')!r}, not {named!r}; name the memory's"
            " with --model"
        )
    if not isinstance(made_with.get("class_name"), str):
        raise InputError(f"memory {memory} does not say its class and prompts; save it again")
    return made_with["class_name"], parse_prompt_set(made_with.get("prompts"), f"of memory {memory}")


def add_references(model: WinCLIP, references: Sequence[str], scorer: Whole, options: Options) -> list[str]:
    """Fill the memory of the current class, save it if requested, and return checksums of its sources.

    Args:
        model: with the class.
        references: the pictures.
        scorer: encodes them for the model.
        options: options of a memory that is loaded or saved.

    Raises:
        InputError: if a memory does not fit or cannot be saved, or no reference can be read.
    """
    if options.memory is not None:
        model.load_memory(options.memory)
        return [file_sha256(options.memory)]
    different: dict[str, str] = {}
    for path in references:
        try:
            checksum = file_sha256(Path(path))
        except OSError:  # the reader says what is wrong with it
            checksum = path
        different.setdefault(checksum, path)
    if len(different) < len(references):
        copies = len(references) - len(different)
        _log.warning("%d of the references count once with others, because they are copies", copies)
    scorer.add_references(list(different.values()))
    if references and not model.reference_count():
        raise InputError(f"none of the {len(references)} references could be read; the warnings above say why")
    if options.save_memory is not None and model.reference_count():
        model.save_memory(options.save_memory)
    return list(different)
