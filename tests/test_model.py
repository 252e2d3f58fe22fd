"""The public interface of the library."""

from __future__ import annotations

import gc
import io
import json
import pickle
import weakref
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.conftest import Predict
from tests.tiny import CONFIG, PICTURES, golden_images, stages
from winclip import InputError, Prediction, WinCLIP
from winclip.memory import read_memory, write_memory
from winclip.network.backbone import Backbone
from winclip.pictures.drawing import encoded
from winclip.prompts import PAPER, REFERENCE, PromptSet, load_prompt_set, with_states
from winclip.thresholds import fallback_threshold

LISTS = ("normal_states", "anomalous_states", "templates")


@pytest.fixture
def model(backbone: Backbone) -> WinCLIP:
    model = WinCLIP(backbone)
    model.set_class("metal_nut")
    return model


def assert_same(one: Prediction, other: Prediction) -> None:
    for name in ("scores", "maps", "text_scores", "reference_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_some_of_the_references_count(model: WinCLIP) -> None:
    images = golden_images()
    model.add_references(images[2:])
    embeddings = model.encode(images[:2])
    some, none = (model.score(embeddings, references=chosen) for chosen in ([2, 0], []))
    with pytest.raises(InputError, match=r"references \[0, 3\] are not all among the 3 of 'metal_nut'"):
        model.score(embeddings, references=[0, 3])
    for chosen, found in (([images[2], images[4]], some), ([], none)):
        model.set_class("metal_nut")
        if chosen:
            model.add_references(chosen)
        expected = model.score(embeddings)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found.maps, expected.maps, rtol=0, atol=1e-6)


def test_predictions_are_the_golden_ones(model: WinCLIP) -> None:
    images, expected = golden_images(), stages()
    out = model.predict(images[:3])
    assert (out.scores.shape, out.maps.shape) == ((3,), (3, 96, 96))
    assert out.maps.dtype == np.float32
    np.testing.assert_allclose(out.scores, expected["zero_image_score"], atol=1e-5)
    np.testing.assert_allclose(out.maps, expected["zero_map_up"], atol=1e-5)
    for k in (1, 2):
        model.add_references(images[2 + k])
        out = model.predict(images[:3])
        np.testing.assert_allclose(out.scores, expected[f"few{k}_image_score"], atol=1e-5)
        np.testing.assert_allclose(out.maps, expected[f"few{k}_total_map_up"], atol=1e-5)


def test_a_score_is_the_mean_of_its_parts(model: WinCLIP) -> None:
    images = golden_images()
    zero = model.predict(images[:3])
    assert zero.reference_scores is None
    np.testing.assert_array_equal(zero.scores, zero.text_scores)
    model.add_references(images[3:])
    few = model.predict(images[:3])
    assert few.reference_scores is not None and few.reference_scores.shape == few.scores.shape == (3,)
    np.testing.assert_array_equal(few.text_scores, zero.text_scores)
    np.testing.assert_array_equal(few.scores, (few.text_scores + few.reference_scores) / 2)
    known = model.predict(images[3]).reference_scores
    assert known is not None and known[0] < 1e-6


@pytest.mark.parametrize("references", [0, 2])
def test_results_can_be_parted_and_joined(model: WinCLIP, references: int) -> None:
    images = golden_images()
    if references:
        model.add_references(images[3:])
    out = model.predict(images[:3])
    first, rest = out[:1], out[1:]
    assert (len(out), len(first), len(rest)) == (3, 1, 2)
    assert (first.reference_scores is None) == (references == 0)
    assert_same(first, model.predict(images[0]))
    assert_same(Prediction.concatenate([first, rest]), out)
    with pytest.raises(InputError, match="no images given"):
        Prediction.concatenate([])


@pytest.mark.parametrize("shots", [0, 3])
def test_a_result_is_what_predict_writes(run: Predict, backbone: Backbone, pictures: Path, shots: int) -> None:
    inputs = [*PICTURES[:3], *sorted((pictures / "images").glob("[ab].png"))]
    references = sorted((pictures / "good").iterdir())[:shots]
    run(*inputs, *(["--reference", pictures / "good"] if shots else []), "--save_path", pictures / "out")
    rows = {row["path"]: row for row in json.loads((pictures / "out" / "predictions.json").read_text())}
    model = WinCLIP(backbone)
    model.set_class("bolt")
    if shots:
        model.add_references(references)
    out = model.predict(inputs)
    for path, result in zip(inputs, out, strict=True):
        row = rows[path.as_posix()]
        assert result.score == pytest.approx(row["score"])
        assert result.anomalous == row["anomalous"]
        assert result.box == (None if row["box"] is None else tuple(row["box"]))
        drawn = Image.open(io.BytesIO(encoded(result.heat_map(), "JPEG", quality=90)))
        with Image.open(pictures / "out" / row["heat_map"]) as expected:
            # Only the map that predict keeps for drawing is rounded.
            assert np.abs(np.asarray(drawn, np.float32) - np.asarray(expected)).mean() < 1
    assert {result.anomalous if shots else result.box is None for result in out} == {True, False}


def test_results_keep_what_was_given_and_read_it_again_when_drawn(model: WinCLIP, tmp_path: Path) -> None:
    path, image = tmp_path / "<one>.png", golden_images()[1]
    golden_images()[0].save(path)
    out = model.predict([path, image])
    assert out.pictures == (path, image)
    assert out[-1:][0].heat_map().width == image.width
    for limit, verdict in ((0.0, ", anomalous"), (1.0, ", good"), (None, "")):
        judged = replace(out, find_threshold=partial(fallback_threshold(0).with_given, limit))
        shown = f'score {out.scores[0]:.4f}{verdict}<br><img alt="heat map" src="data:image/webp'
        assert shown in judged[0]._repr_html_()
    path.unlink()
    assert "&lt;one&gt;.png does not exist" in out[0]._repr_html_()
    copy = pickle.loads(pickle.dumps(out[1:]))
    iterator: Any = iter([image])
    for without in (copy, model.score(model.encode(image)), model.predict(iterator)):
        with pytest.raises(InputError, match="result 0 holds no picture; give it to heat_map"):
            without[0].heat_map()
        assert without[0].heat_map(image).size == out[1].heat_map().size
    with pytest.raises(IndexError):
        out[2]


def test_the_verdict_is_of_the_references_that_were_compared(backbone: Backbone) -> None:
    model, images = WinCLIP(backbone), golden_images()
    model.set_class("metal_nut")
    embeddings = model.encode(images[:2])
    model.add_references(images[3])
    assert model.score(embeddings)[0].anomalous is None
    model.add_references([images[2], images[4]])
    some, every = model.score(embeddings, references=[0, 2]), model.score(embeddings)
    expected = model.threshold()
    model.add_references(images[:2])
    assert every._threshold == expected != model.threshold()
    assert some._threshold.rule.startswith("2 references")
    # Results do not keep the network.
    network, late = weakref.ref(model), model.score(embeddings)
    del model
    gc.collect()
    assert network() is None and late[0].anomalous is False


def test_it_is_said_which_references_are_taken(model: WinCLIP, logged: list[str]) -> None:
    images = golden_images()
    assert model.take_references(model.encode([images[0], images[1], images[0]])) == [0, 1]
    assert model.take_references(model.encode([images[1], images[2], images[0]])) == [1]
    assert model.reference_count() == 3
    assert [message[:24] for message in logged] == ["1 of the references coun", "2 of the references coun"]


def test_an_image_may_be_given_in_any_form(model: WinCLIP, tmp_path: Path) -> None:
    path, image = PICTURES[0], golden_images()[0].convert("RGB")
    array, grey = np.array(image), np.asarray(golden_images()[2])
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    together = model.predict([path, str(path), image, array, tensor, tmp_path / "turned.png"], batch_size=4)
    expected = model.predict(path).maps
    np.testing.assert_array_equal(together.maps, np.repeat(expected, 6, axis=0))
    for alone in (array, tensor, tensor[None], tensor.double()):
        np.testing.assert_array_equal(model.predict(alone).maps, expected)
    assert model.predict(torch.stack([tensor, tensor])).scores.shape == (2,)
    assert len(set(model.predict([np.stack([grey] * 3, axis=2), grey]).scores)) == 1


def test_classes_are_held_side_by_side(model: WinCLIP) -> None:
    images = golden_images()
    embeddings = model.encode(images)
    model.add_references(embeddings[3:])
    nut = model.score(embeddings)
    model.set_class("bolt", with_states(REFERENCE, anomalous_states=["bent"]))
    assert (model.reference_count(), model.reference_count(class_name="metal_nut")) == (0, 2)
    bolt = model.score(embeddings)
    np.testing.assert_array_equal(model.score(embeddings, class_name="metal_nut").maps, nut.maps)
    np.testing.assert_array_equal(model.predict(images, class_name="metal_nut").maps, nut.maps)
    assert not np.array_equal(bolt.maps, nut.maps)
    model.add_references(images[3:], class_name="bolt")
    assert not np.array_equal(model.score(embeddings).maps, bolt.maps)
    with pytest.raises(InputError, match="class 'gear' is not set, only metal_nut, bolt"):
        model.score(embeddings, class_name="gear")


def test_leaving_one_out_is_scoring_against_the_others(model: WinCLIP) -> None:
    images = golden_images()
    with pytest.raises(InputError, match="add at least 2"):
        model.leave_one_out()
    model.add_references(images[:2])
    model.leave_one_out()
    model.add_references(images[2])
    left_out = model.leave_one_out()
    for own in range(3):
        model.set_class("metal_nut")
        model.add_references([images[other] for other in range(3) if other != own])
        alone = model.predict(images[own])
        np.testing.assert_allclose(left_out.scores[own], alone.scores[0], rtol=0, atol=1e-7)
        np.testing.assert_allclose(left_out.maps[own], alone.maps[0], rtol=0, atol=1e-6)


def test_memory_keeps_what_a_threshold_is_taken_from_and_can_grow(model: WinCLIP, tmp_path: Path) -> None:
    images = golden_images()
    model.add_references(images[:3])
    expected, threshold = model.leave_one_out(), model.threshold()
    model.save_memory(tmp_path / "nut.safetensors")
    model.set_class("metal_nut")
    model.load_memory(tmp_path / "nut.safetensors")
    assert_same(model.leave_one_out(), expected)
    assert model.threshold() == threshold
    model.add_references(images[3])
    grown = model.leave_one_out().scores
    model.set_class("metal_nut")
    model.add_references(images[:4])
    np.testing.assert_allclose(grown, model.leave_one_out().scores, rtol=0, atol=1e-9)


def test_memory_made_with_anything_else_is_refused(model: WinCLIP, tmp_path: Path) -> None:
    path = tmp_path / "nut.safetensors"

    def refused(named: str) -> None:
        with pytest.raises(InputError, match=f"memory {path} .*{named}"):
            model.load_memory(path)

    model.add_references(golden_images()[3:])
    model.save_memory(path)
    tensors, made_with = read_memory(path)
    assert made_with["model"] == CONFIG.name and made_with["version"]
    write_memory(path, tensors, {**made_with, "version": "0.0.1"})
    model.load_memory(path)
    for key, value in (("weights_sha256", "0" * 64), ("image_size", 64), ("temperature", 0.1), ("format", "x")):
        write_memory(path, tensors, {**made_with, key: value})
        refused(f"{key} is ")
    for missing in tensors:
        write_memory(path, {name: tensor for name, tensor in tensors.items() if name != missing}, made_with)
        refused(f"'{missing}'")
    changes: list[tuple[str, torch.Tensor]] = [
        ("patch", tensors["patch"] * float("nan")),
        ("cls", tensors["cls"] * 100),
        ("cls", tensors["cls"][:0]),
        ("windows_3", tensors["windows_3"][:, :3]),
        ("windows_3", tensors["windows_3"].double()),
        ("left_out_text", tensors["left_out_text"] + 2),
        ("left_out_reference", tensors["left_out_reference"] - 1),
        ("left_out_reference", tensors["left_out_reference"][:1]),
        ("left_out_maps", tensors["left_out_maps"] * float("nan")),
    ]
    for name, changed in changes:
        write_memory(path, {**tensors, name: changed}, made_with)
        refused(f"{name} is ")
    assert model.reference_count() == 2
    write_memory(path, tensors, made_with)
    for class_name, prompts, named in (("metal_nut", PAPER, "prompts is"), ("bolt", REFERENCE, "class_name is")):
        model.set_class(class_name, prompts)
        refused(named)
    whole = path.read_bytes()
    for damaged in (whole[:100], safetensors.torch.save({"cls": torch.zeros(1)}), None):
        path.write_bytes(damaged) if damaged else path.unlink()
        refused("cannot be read")


def test_memories_of_half_precision_and_of_one_reference_are_taken(checkpoint: Path, tmp_path: Path) -> None:
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu", precision="fp16", image_size=64)
    model.set_class("metal nut", prompt_set="paper")
    for image in golden_images()[:2]:
        model.add_references(image)
        model.save_memory(tmp_path / "nut.safetensors")
        model.load_memory(tmp_path / "nut.safetensors")
    assert model.predict(golden_images()[2]).maps.shape == (1, 64, 64)


@pytest.mark.parametrize("part", ["cls", "windows", "patch"])
def test_a_nan_is_never_a_score(model: WinCLIP, part: str) -> None:
    embeddings = model.encode(golden_images()[:3])
    bad = embeddings.map(torch.clone)
    {"cls": bad.cls, "windows": bad.windows[0], "patch": bad.patch}[part][1].view(-1)[5] = float("nan")
    with pytest.raises(InputError, match="NaN of reference 1 of 3"):
        model.add_references(bad)
    if part != "patch":  # which zero-shot ignores
        with pytest.raises(InputError, match="NaN of image 1 of 3"):
            model.score(bad)
    model.add_references(embeddings)
    with pytest.raises(InputError, match="NaN"):
        model.score(bad[1:2])
    assert np.isfinite(model.score(bad[:1]).scores).all()


def test_wrong_use_says_what_to_do(backbone: Backbone, model: WinCLIP, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set_class"):
        WinCLIP(backbone).predict(golden_images()[0])
    with pytest.raises(InputError, match="class name is empty"):
        model.set_class("  ")
    with pytest.raises(InputError, match=r"'nut nut.*' is too long: .* 77 tokens, of which 6\d"):
        model.set_class("nut " * 70)
    with pytest.raises(InputError, match=r"none\.safetensors"):
        model.save_memory(tmp_path / "none.safetensors")
    beyond = torch.tensor([-1.0, 0, 0]).reshape(3, 1, 1)
    for images, named in (
        ([], "no images"),
        ([np.zeros((4, 4, 2), np.uint8)], r"\(4, 4, 2\)"),
        (torch.zeros(4, 4, 3), r"\(4, 4, 3\)"),
        (beyond, "-1 to 0"),
        ("nowhere.png", r"nowhere\.png"),
    ):
        with pytest.raises(InputError, match=named):
            model.predict(images)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        json.dumps({"templates": ["{}"]}),
        json.dumps({"normal_states": ["x"], "anomalous_states": ["{}"], "templates": ["{}"]}),
        json.dumps({**{key: ["{}"] for key in LISTS}, "normalise_each": 1}),
        json.dumps({**{key: ["{}"] for key in LISTS}, "normalize_each": True}),
    ],
)
def test_bad_prompt_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"prompt set {path}"):
        load_prompt_set(str(path))


def test_every_prompt_set_can_be_written_as_a_file(tmp_path: Path) -> None:
    for prompts in (REFERENCE, PAPER):
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(asdict(prompts)))
        assert load_prompt_set(str(path)) == prompts
        path.write_text(json.dumps({key: value for key, value in asdict(prompts).items() if key in LISTS}))
        without = PromptSet(prompts.normal_states, prompts.anomalous_states, prompts.templates)
        assert load_prompt_set(str(path)) == without


def test_states_of_ones_own_replace_those_of_the_set() -> None:
    own = with_states(PAPER, normal_states=["new"], anomalous_states=["With a missing pin", "{}, bent"])
    assert (own.normal_states, own.anomalous_states) == (("new {}",), ("{} With a missing pin", "{}, bent"))
    assert (own.templates, own.normalise_each) == (PAPER.templates, True)
    assert with_states(PAPER) == PAPER
    for states in ([], [" "], ["{} on {}"]):
        with pytest.raises(InputError, match=r"anomalous_states is empty|must be words with at most one {}"):
            with_states(PAPER, anomalous_states=states)
