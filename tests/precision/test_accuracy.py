"""Scores of engines that answer what a test tells them to."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx_ir")
from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data.caching import CachedBatches
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.precision.accuracy import WORST, OutputMetric, Scorer, thumbnail
from s2mlp_deploy.preprocess import Preprocessing, to_array


class Told:
    """An engine whose answers are known beforehand: the n-th sample's input is filled with n."""

    name, metadata = "told", {}

    def __init__(self, scores, dtype="float32", name="input"):
        self.scores = np.asarray(scores, np.float32)
        self.inputs = (TensorInfo(name, dtype, ("batch", 3, 4, 4)),)
        self.outputs = (TensorInfo("scores", "float32", ("batch", *self.scores.shape[1:])),)

    def run(self, feeds):
        (values,) = feeds.values()
        assert list(feeds) == [self.inputs[0].name]
        assert values.dtype == self.inputs[0].dtype
        return {"scores": self.scores[values[:, 0, 0, 0].astype(int)]}


def data(count, labels=None, size=3):
    """Batches of samples that know their number."""
    found = []
    for start in range(0, count, size):
        numbers = np.arange(start, min(start + size, count))
        inputs = np.broadcast_to(numbers[:, None, None, None].astype(np.float32), (len(numbers), 3, 4, 4)).copy()
        found.append(({"input": inputs}, None if labels is None else np.asarray(labels)[numbers]))
    return found


SCORES = np.eye(4)[[0, 1, 2, 3, 0, 1, 2]] * 5


def scorer(labels=None, **options) -> Scorer:
    return Scorer(Told(SCORES), data(7, labels), described="seven", **options)


def row(of: Scorer, scores, **engine):
    return of.row(Told(scores, **engine), file="f", precision="p", size=9, arithmetic="a")


def test_whoever_scores_tells_how_far_it_is():
    told: list[int] = []
    found = scorer(noise=data(6), on_samples=told.append)
    assert told == [3, 6, 7]
    row(found, SCORES)
    assert told == [3, 6, 7] * 2


def test_the_images_that_the_score_counts_are_counted():
    assert scorer([0, -1, 2, -1, -1, 1, 2]).counted == 4
    assert scorer().counted == 7


def test_with_labels_the_score_is_accuracy():
    found = scorer([0, 1, 2, 3, 1, 1, 1])
    assert found.metric == "top-1 accuracy"
    assert found.images == 7
    assert found.reference_score == pytest.approx(100 * 5 / 7)
    other = SCORES.copy()
    other[4] = [0, 9, 0, 0]  # right, where float32 is wrong
    assert found.score(Told(other)) == pytest.approx(100 * 6 / 7)
    figures = row(found, other)
    assert (figures.file, figures.precision, figures.bytes, figures.arithmetic) == ("f", "p", 9, "a")
    assert figures.score == pytest.approx(100 * 6 / 7)
    assert figures.agreement == pytest.approx(100 * 6 / 7)
    signal, noise = np.square(SCORES).sum(), np.square(other - SCORES).sum()
    assert figures.sqnr == pytest.approx(10 * np.log10(signal / noise), abs=1e-4)


def test_images_without_a_label_do_not_count():
    assert scorer([0, -1, -1, -1, 1, -1, -1]).reference_score == 50.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3, 0, 1, 2]])
def test_an_image_whose_scores_are_nan_is_wrong(labels, bad):
    """argmax takes the first NaN for the largest, and 0 where all are."""
    other = SCORES.copy()
    other[[0, 1, 4]] = bad
    other[2, 1] = bad
    found = scorer(labels)
    assert found.score(Told(other)) == pytest.approx(100 * 3 / 7)
    assert row(found, other).agreement == pytest.approx(100 * 3 / 7)


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3, 0, 1, 2]])
def test_a_reference_that_is_nan_on_some_images_is_none(labels):
    broken = SCORES.copy()
    broken[:4] = np.nan
    with pytest.raises(DataError, match="NaN or infinite scores on 4 of 7 images"):
        Scorer(Told(broken), data(7, labels), described="seven").check_finite()


def test_a_masked_class_is_never_the_first_and_is_no_fault():
    masked = SCORES.copy()
    masked[:, 3] = -np.inf
    assert scorer().score(Told(masked)) == pytest.approx(100 * 6 / 7)


def test_without_labels_the_score_is_agreement():
    found = scorer()
    assert found.metric == "top-1 agreement with fp32"
    assert found.reference_score == 100.0
    other = SCORES.copy()
    other[:3] = other[[1, 2, 0]]
    assert found.score(Told(other)) == pytest.approx(100 * 4 / 7)


def test_a_metric_of_ones_own_takes_any_output():
    def found_boxes(engine) -> float:
        return 60.0 + engine.scores.shape[-1]

    found = Scorer(Told(np.zeros((7, 2, 5))), data(7), described="", metric=found_boxes)
    assert (found.metric, found.reference_score) == ("found_boxes", 65.0)
    figures = row(found, np.ones((7, 2, 6)))
    assert figures.score == 66.0
    assert figures.agreement is None
    # Outputs of another shape have no difference.
    assert figures.sqnr is None
    assert row(found, np.ones((7, 2, 5))).sqnr is None, "no signal"


def test_a_metric_of_outputs_gets_them_with_the_labels():
    def share_of_ones(outputs, labels):
        assert (outputs.shape, labels.tolist()) == ((7, 4), [0, 1, 2, 3, 0, 1, -1])
        return 100.0 * float((outputs.argmax(axis=1) == 1).mean())

    found = scorer([0, 1, 2, 3, 0, 1, -1], metric=OutputMetric("ones", share_of_ones))
    assert found.metric == "ones"
    assert found.reference_score == pytest.approx(200 / 7)
    other = np.roll(SCORES, 1, axis=1)
    assert found.score(Told(other)) == row(found, other).score == pytest.approx(200 / 7)
    assert row(found, other).agreement == 0.0


def test_without_a_score_outputs_are_compared_also_on_noise():
    noise = [({"input": np.zeros((5, 3, 4, 4), np.float32)}, None)]
    for batches in (data(7), None):
        found = Scorer(Told(SCORES), batches, described="", scored=False, noise=noise)
        assert (found.metric, found.reference_score) == ("", None)
        other = SCORES * 1.1
        figures = row(found, other)
        assert figures.score is None
        # A factor is no other direction: the cosine does not see it.
        assert figures.sqnr == pytest.approx(20, abs=1e-4)
        assert [o.metrics.cosine for o in (*figures.outputs, *figures.on_noise)] == pytest.approx(
            [1.0] * (1 + bool(batches))
        )
        assert figures.on_noise[0].metrics.elements == 5 * 4
    broken = SCORES.copy()
    broken[0, 0] = np.nan
    assert row(found, broken).sqnr is None, "what is left out is not good"


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 4, 4), (7, 2, 3, 3)])
def test_outputs_that_are_no_scores_need_a_metric(shape):
    with pytest.raises(DataError, match="no list of scores") as caught:
        Scorer(Told(np.zeros(shape)), data(7), described="")
    assert "metric" in str(caught.value)


def test_a_label_that_is_no_class():
    with pytest.raises(DataError, match="label 4, and the model has 4 classes") as caught:
        scorer([0, 1, 2, 3, 4, 0, 0])
    assert caught.value.exit_code == 2
    # A metric of one's own may read labels as it likes.
    assert scorer([0, 1, 2, 3, 4, 0, 0], metric=lambda engine: 1.0).reference_score == 1.0


def test_float32_has_no_error():
    figures = scorer().reference_row("model.fp32.onnx", 123)
    assert (figures.bytes, figures.score, figures.agreement, figures.sqnr) == (123, 100.0, 100.0, None)


def test_inputs_are_renamed_and_cast():
    assert scorer().score(Told(SCORES, dtype="float16", name="image")) == 100.0


def test_the_worst_images_are_those_that_changed_their_class():
    other = SCORES.copy()
    other[2] += 4  # far, same class
    other[5] = [0, 5, 5.5, 0]  # near, another class
    other[6, 0] = 1
    preprocessing = Preprocessing(size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1), scale=1.0)
    found = scorer(
        [0, 1, 2, 3, 0, 1, 2], classes=("a", "b", "c", "d"), preprocessing=preprocessing, names=lambda n: f"{n}.png"
    )
    worst = row(found, other).worst
    assert len(worst) == min(WORST, 7)
    assert [(w.label, w.reference.label, w.candidate.label) for w in worst[:3]] == [
        ("b", "b", "c"),
        ("c", "c", "c"),
        ("c", "c", "c"),
    ]
    assert worst[1].distance > worst[2].distance > 0
    exact = np.exp([5.0, 0, 0, 0])
    assert worst[0].reference.probability == pytest.approx(exact[0] / exact.sum(), rel=1e-5)
    assert [(w.index, w.name) for w in worst[:3]] == [(5, "5.png"), (2, "2.png"), (6, "6.png")]
    # The images are those of these samples, whose every value is their number.
    for image, number in zip(worst, (5, 2, 6), strict=False):
        assert np.asarray(decoded(image.thumbnail))[0, 0, 0] == number


def decoded(address: str) -> Image.Image:
    head, _, body = address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_a_thumbnail_undoes_the_preprocessing(color):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    description = Preprocessing(size=(20, 30), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), color=color)
    array = to_array(Image.fromarray(pixels), description, where="here")
    shown = np.asarray(decoded(thumbnail(array, description)))
    assert np.abs(shown.astype(int) - pixels).max() <= 1
    np.testing.assert_array_equal(np.asarray(decoded(thumbnail(pixels, None))), pixels)


def test_a_thumbnail_of_any_image_is_small():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    address = thumbnail(pixels, None)
    assert address.startswith("data:image/jpeg;base64,")
    assert len(address) < 10_000


def test_what_is_no_image_has_no_thumbnail():
    assert thumbnail(np.zeros((3, 4, 4), np.float32), None) == ""
    assert thumbnail(np.zeros(7, np.float32), None) == ""


# Batches that are kept


class Counting:
    """Batches that count how often they were made."""

    def __init__(self, batches):
        self.batches, self.made = batches, 0

    def __iter__(self):
        return self.from_batch(0)

    def from_batch(self, index):
        for batch in self.batches[index:]:
            self.made += 1
            yield batch


def numbers(batches):
    return [int(value) for feeds, _ in batches for value in feeds["input"][:, 0, 0, 0]]


@pytest.mark.parametrize("kept", [0, 1, 2, 100])
def test_batches_come_in_the_same_order_however_many_are_kept(monkeypatch, kept):
    from s2mlp_deploy.data import caching as remembered

    batches = data(10)
    monkeypatch.setattr(remembered, "LIMIT", kept * batches[0][0]["input"].nbytes)
    source = Counting(batches)
    found = CachedBatches(source)
    assert [len(feeds["input"]) for feeds in found.first(4)] == [3, 3]
    for _ in range(3):
        assert numbers(found) == list(range(10))
    assert numbers((feeds, None) for feeds in found.first(100)) == list(range(10))
    assert source.made == (4 if kept == 100 else 2 + 4 * (4 - kept)), "made again though it was kept"


def test_an_iteration_that_ends_early_loses_nothing():
    found = CachedBatches(Counting(data(10)))
    for _ in found:
        break
    assert numbers(found) == list(range(10))
