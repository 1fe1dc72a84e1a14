"""The preprocessing in the graph against the Python path, in steps of the 8-bit pixels."""

from __future__ import annotations

import dataclasses
import itertools
import json

import nano_artifact
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
import onnx
import onnx_ir as ir

from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import ArtifactError, ExportError, ImageError, InputError, PreprocessingError
from s2mlp_deploy.export.preprocessing import IMAGE, add_preprocessing
from s2mlp_deploy.preprocess import MAX_SIDE, Preprocessing, open_image, raw_pixels, to_array
from s2mlp_deploy.serving.predictor import Predictor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = (
    (33, 47),
    (37, 500),
    (255, 257),
    (7, 900),
    (1, 1),
    (1, 50),
    (64, 64),
    (512, 512),
    (301, 1001),
    (3, 3),
    (500, 334),
    (449, 224),
    (500, 37),
    (96, 128),
)
"""Odd sizes, up and down, wide and tall: of the tall ones Pillow resizes the height first."""


def described(size=(64, 64), *, color="RGB", **fields):
    channels = 1 if color == "L" else 3
    return Preprocessing(size, MEAN[:channels], STD[:channels], color=color, **fields)


def network(preprocessing, *, opset=20, dtype=ir.DataType.FLOAT, shape=None, names=("input", "output")):
    """A network that returns its input, so that the graph's result is the preprocessed image."""
    kind = ir.TensorType(dtype)
    shape = shape or ["batch", preprocessing.channels, *preprocessing.size]
    x, y = (ir.Value(name=name, type=kind, shape=ir.Shape(shape)) for name in names)
    inner = ir.Value(name="inner", type=kind, shape=ir.Shape(shape))
    nodes = [
        ir.Node("", "Identity", [x], outputs=[inner], name="first"),
        ir.Node("", "Identity", [inner], outputs=[y], name="last"),
    ]
    return ir.Model(ir.Graph([x], [y], nodes=nodes, opset_imports={"": opset}, name="network"), ir_version=10)


def engine(preprocessing, **options):
    proto = ir.to_proto(add_preprocessing(network(preprocessing, **options), preprocessing))
    onnx.checker.check_model(proto, full_check=True)
    return OnnxRuntimeEngine(proto.SerializeToString(), threads=1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def steps(run, preprocessing, pixels):
    """The distance of every input value from Python's, in steps of 8 bits."""
    graph = run.run({IMAGE: pixels[None]})["output"][0]
    python = to_array(Image.fromarray(pixels), preprocessing)
    assert graph.shape == python.shape
    assert graph.dtype == python.dtype
    std = np.asarray(preprocessing.std, np.float32).reshape(-1, 1, 1)
    return np.abs(graph - python) * std / preprocessing.scale


def summary(differences):
    """The largest difference in steps, the mean share of values that differ, and the share of the worst image."""
    shares = [float((item > 0.5).mean()) for item in differences]
    return max(float(item.max()) for item in differences), float(np.mean(shares)), max(shares)


CASES = [
    *itertools.product(("bilinear", "bicubic"), ("center", "squash", "border"), ((64, 64), (48, 80)), (0.875, 1.0)),
    *itertools.product(("lanczos", "hamming"), ("center", "border"), ((48, 80),), (0.9,)),
    ("box", "center", (64, 64), 0.875),
]


@pytest.mark.parametrize(("interpolation", "crop_mode", "size", "crop_pct"), CASES)
def test_noise_of_any_size_is_within_one_step(interpolation, crop_mode, size, crop_pct):
    preprocessing = described(size, interpolation=interpolation, crop_mode=crop_mode, crop_pct=crop_pct)
    run = engine(preprocessing)
    largest, mean, worst = summary([steps(run, preprocessing, noise(*sides)) for sides in SIZES])
    print(
        f"noise {interpolation} {crop_mode} {size} {crop_pct}: {largest:.0f} steps, share {mean:.5f}, worst {worst:.5f}"
    )
    # Bilinear weights are small fractions: many sums are halves, or so close that float32 cannot tell.
    assert largest < 1.01
    assert mean <= (0.01 if interpolation == "bilinear" else 0.0005)
    assert worst <= (0.1 if interpolation == "bilinear" else 0.004)


@pytest.mark.data
@pytest.mark.parametrize(("interpolation", "crop_pct"), [("bilinear", 0.875), ("bicubic", 0.9)])
def test_photographs_are_within_two_steps(data_dir, interpolation, crop_pct):
    preprocessing = described((224, 224), interpolation=interpolation, crop_pct=crop_pct)
    run = engine(preprocessing)
    paths = sorted((data_dir / "imagenet_sample").iterdir())[::6]
    largest, mean, worst = summary([steps(run, preprocessing, np.asarray(open_image(path))) for path in paths])
    print(f"{len(paths)} photographs {interpolation} 224: {largest:.0f} steps, share {mean:.5f}, worst {worst:.5f}")
    assert largest < 2.01
    assert mean <= (0.003 if interpolation == "bilinear" else 0.0006)


@pytest.mark.parametrize("color", ["BGR", "L"])
@pytest.mark.parametrize("crop_mode", ["center", "border"])
def test_other_colors(color, crop_mode):
    preprocessing = described((40, 60), color=color, crop_mode=crop_mode, interpolation="bicubic")
    run = engine(preprocessing)
    assert summary([steps(run, preprocessing, noise(*sides)) for sides in SIZES])[0] < 1.01


def test_grey_is_exact_for_every_colour():
    """Also where the sum of weighted colours is near a half."""
    preprocessing = described((64, 64), color="L", interpolation="none")
    run = engine(preprocessing)
    assert max(steps(run, preprocessing, noise(64, 64, seed)).max() for seed in range(20)) == 0


def test_nearest_takes_the_same_pixels_where_one_is_nearest():
    """An odd size and a power of two have no ties; at a tie Pillow's running sum decides."""
    preprocessing = described((32, 32), interpolation="nearest", crop_mode="squash")
    run = engine(preprocessing)
    assert max(steps(run, preprocessing, noise(*sides)).max() for sides in [(33, 47), (301, 255), (9, 5)]) == 0


def test_without_a_resize_the_size_is_fixed_and_nothing_differs():
    preprocessing = described((24, 40), interpolation="none", scale=1.0)
    run = engine(preprocessing)
    assert run.inputs[0].shape == ("batch", 24, 40, 3)
    assert steps(run, preprocessing, noise(24, 40)).max() == 0
    with pytest.raises(InputError, match="refused the inputs"):
        run.run({IMAGE: noise(24, 41)[None]})


def test_pillows_order_of_passes_is_followed_to_the_edge():
    """Noise that is resized in the other order differs by many steps."""
    preprocessing = described((40, 60), interpolation="bicubic", crop_mode="squash")
    run = engine(preprocessing)
    # Height first where it loses more than twice what the width loses: 40 pixels more than, exactly, less than.
    sides = [(40 + 2 * lost + extra, 60 + lost) for lost in (0, 5, 31) for extra in (-1, 0, 1)]
    assert summary([steps(run, preprocessing, noise(*item)) for item in sides])[0] < 1.01
    # The limit of one step can tell: the other order is many steps away.
    noisy, bicubic = Image.fromarray(noise(103, 91)), Image.Resampling.BICUBIC
    right = np.asarray(noisy.resize((60, 40), bicubic), int)
    other = np.asarray(noisy.resize((60, 103), bicubic).resize((60, 40), bicubic), int)
    assert np.abs(right - other).max() > 2


@pytest.mark.parametrize("sides", [(90, 70), (500, 70)])
def test_a_batch_is_its_images(sides):
    run = engine(described())
    images = np.stack([noise(*sides, seed) for seed in range(3)])
    together = run.run({IMAGE: images})["output"]
    alone = [run.run({IMAGE: image[None]})["output"][0] for image in images]
    np.testing.assert_array_equal(together, np.stack(alone))


@pytest.mark.parametrize("opset", [18, 25])
def test_the_graph_says_what_it_is(opset):
    preprocessing = described(crop_mode="border", interpolation="lanczos")
    plain = network(preprocessing, opset=opset)
    model = add_preprocessing(plain, preprocessing)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [value.name for value in plain.graph.inputs] == ["input"]
    (image,) = model.graph.inputs
    assert (image.name, image.dtype) == (IMAGE, ir.DataType.UINT8)
    assert [str(getattr(size, "value", size)) for size in image.shape] == ["batch", "height", "width", "3"]
    new = [node for node in model.graph if node.name not in ("first", "last")]
    assert new
    assert all(node.name.startswith("preprocessing/") for node in new)
    assert all(name.startswith("preprocessing.") for name in model.graph.initializers)
    assert {node.op_type for node in new}.isdisjoint({"If", "Loop", "Scan", "Constant", "Resize"})
    assert new[-1].outputs[0].name == "input"


def test_half_precision_networks_get_what_they_take():
    preprocessing = described()
    run = engine(preprocessing, dtype=ir.DataType.FLOAT16)
    output = run.run({IMAGE: noise(90, 70)[None]})["output"][0]
    assert output.dtype == np.float16
    np.testing.assert_allclose(output, to_array(Image.fromarray(noise(90, 70)), preprocessing), atol=0.03)


@pytest.mark.parametrize("names", [(IMAGE, "output"), ("input", "output")])
def test_names_that_are_taken(names):
    preprocessing = described()
    plain = network(preprocessing, names=names)
    plain.graph[0].outputs[0].name = IMAGE if names[0] != IMAGE else "inner"
    proto = ir.to_proto(add_preprocessing(plain, preprocessing))
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.input] == [IMAGE]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ["batch", 3, 64, 32]}, r"makes 3x64x64, and the input input takes 3x64x32[\s\S]*--preprocess"),
        ({"shape": ["batch", 1, 64, 64]}, "takes 1x64x64"),
        ({"shape": ["batch", 3, "height", "width"]}, r"makes one size[\s\S]*--dynamic"),
        ({"shape": ["batch", 64]}, "no float image"),
        ({"dtype": ir.DataType.INT64}, "no float image"),
        ({"names": ("input", IMAGE)}, "an output is called 'image'"),
    ],
)
def test_networks_that_take_something_else(options, message):
    with pytest.raises(ExportError, match=message):
        add_preprocessing(network(described(), **options), described())


def test_two_inputs_cannot_be_one_image():
    model = network(described())
    model.graph.inputs.append(ir.Value(name="other", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])))
    with pytest.raises(ExportError, match=r"2 inputs[\s\S]*input, other"):
        add_preprocessing(model, described())


def test_tensorrt_rtx_parses_and_builds(tmp_path):
    """It refuses an antialiased Resize; these matrix products it takes, also for sizes that are float64 inside."""
    pytest.importorskip("tensorrt_rtx")
    for crop_mode in ("center", "border"):
        preprocessing = described((40, 60), crop_mode=crop_mode)
        file = tmp_path / f"{crop_mode}.onnx"
        onnx.save(ir.to_proto(add_preprocessing(network(preprocessing), preprocessing)), file)
        with pytest.raises(InputError, match=r"1 \(height\), 2 \(width\) of the input image[\s\S]*--min-shapes"):
            api.build(file, targets=["sm89"])
        low, high = {IMAGE: (1, 16, 16, 3)}, {IMAGE: (2, 800, 800, 3)}
        assert api.build(file, targets=["sm89"], min_shapes=low, max_shapes=high).bytes > 0


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """The digit network with its preprocessing."""
    directory = tmp_path_factory.mktemp("with-preprocessing")
    api.export(nano_artifact.captured(), directory, with_preprocessing=True)
    return directory


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noise over gradients, of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    for index, (height, width) in enumerate([(60, 45), (33, 101), (40, 32), (120, 32)]):
        ramp = np.linspace(0, 180, height * width).reshape(height, width, 1)
        pixels = (ramp + noise(height, width, index) * 0.29).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_the_manifest_says_it(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["preprocessing_in_graph"] is True
    assert manifest["preprocessing"]["size"] == [32, 32]
    assert manifest["inputs"] == [{"name": IMAGE, "dtype": "uint8", "shape": ["batch", "height", "width", 3]}]
    plain = json.loads((nano_artifact.read_only() / "manifest.json").read_text())
    assert plain["preprocessing_in_graph"] is False


def test_prediction_needs_no_python_preprocessing(artifact, images, monkeypatch):
    paths = sorted(images.iterdir())
    expected = Predictor(nano_artifact.read_only(), threads=1, allow_unproven=True).predict(paths, top=10)
    predictor = Predictor(artifact, threads=1, allow_unproven=True)
    monkeypatch.setattr("s2mlp_deploy.data.feeds.to_array", None)
    for found, wanted in zip(predictor.predict(paths, top=10), expected, strict=True):
        assert found.image == wanted.image
        assert dict(zip(found.classes, found.probabilities, strict=True)) == pytest.approx(
            dict(zip(wanted.classes, wanted.probabilities, strict=True)), abs=1e-3
        )
    assert predictor.predict([]) == []


def test_parity_goes_from_the_pixels_on(artifact, images):
    files = [artifact / "model.fp32.onnx", nano_artifact.read_only() / "model.fp32.onnx"]
    in_graph, plain = api.parity(nano_artifact.captured(), files, data=images)
    assert in_graph.passed
    assert plain.passed
    assert in_graph.images == 4
    assert "raw pixels of 4 images" in in_graph.data
    assert in_graph.outputs[0].tolerances.rtol == 5e-3
    assert plain.outputs[0].tolerances.rtol == 1e-3
    assert plain.outputs[0].metrics.max_abs <= 1e-5 + 1e-4 * plain.outputs[0].metrics.peak


def test_parity_sees_a_wrong_preprocessing(artifact, images, tmp_path):
    captured = nano_artifact.captured()
    other = dataclasses.replace(captured.source.preprocessing, crop_pct=0.95)
    source = dataclasses.replace(captured.source, preprocessing=other)
    copy = tmp_path / "model.fp32.onnx"
    copy.write_bytes((artifact / "model.fp32.onnx").read_bytes())
    (report,) = api.parity(dataclasses.replace(captured, source=source), [copy], data=images)
    assert not report.passed


def test_parity_without_images_makes_some(artifact, tmp_path):
    (report,) = api.parity(nano_artifact.captured(), [artifact / "model.fp32.onnx"])
    assert report.passed, report.failures
    assert report.images == 16
    assert report.data == "16 seeded images of noise (seed 0)"
    # And it sees a wrong preprocessing on them.
    captured = nano_artifact.captured()
    other = dataclasses.replace(captured.source.preprocessing, crop_pct=0.9)
    wrong = dataclasses.replace(captured, source=dataclasses.replace(captured.source, preprocessing=other))
    copy = tmp_path / "model.fp32.onnx"
    copy.write_bytes((artifact / "model.fp32.onnx").read_bytes())
    (report,) = api.parity(wrong, [copy], samples=4)
    assert report.images == 4
    assert not report.passed


def test_an_unknown_preprocessing_is_refused_before_the_capture(tmp_path, monkeypatch):
    source = dataclasses.replace(nano_artifact.captured().source, preprocessing=None)
    monkeypatch.setattr("s2mlp_deploy.api.exporting.capture", None)
    with pytest.raises(PreprocessingError, match=r"no preprocessing is configured[\s\S]*--preprocess"):
        api.export(source, tmp_path / "out", with_preprocessing=True)
    assert not (tmp_path / "out").exists()


def test_fixed_batches_get_the_image_as_often_as_they_want(tmp_path, images):
    preprocessing = described((8, 8))
    image = raw_pixels(sorted(images.iterdir())[0], 3)
    assert image.shape == (3, 60, 45, 3)
    run = engine(preprocessing, shape=[3, 3, 8, 8])
    assert run.inputs[0].shape == (3, "height", "width", 3)
    assert run.run({IMAGE: image})["output"].shape == (3, 3, 8, 8)


def test_an_image_that_is_too_long_is_refused(tmp_path):
    Image.new("L", (MAX_SIDE + 1, 1)).save(tmp_path / "long.png")
    with pytest.raises(ImageError, match=r"65,535 a side\): 65536 x 1 pixels[\s\S]*long\.png"):
        raw_pixels(tmp_path / "long.png")


@pytest.mark.data
def test_logits_on_photographs(artifact, data_dir, tmp_path):
    """The digit network, and one of 224 x 224 with random weights: both from pixels to scores."""
    sidecar = tmp_path / "imagenet.json"
    sidecar.write_text(json.dumps(described((224, 224), interpolation="bicubic", crop_pct=0.9).to_dict()))
    settings = {"image_size": "224", "patches": "14,2", "depths": "1,1", "classes": "1000"}
    large = api.capture(api.load("s2mlpv2_nano", preprocess=sidecar, overrides=settings))
    api.export(large, tmp_path / "large", with_preprocessing=True)
    for source, directory, limit in ((nano_artifact.captured(), artifact, 1e-5), (large, tmp_path / "large", 1e-3)):
        (report,) = api.parity(source, [directory / "model.fp32.onnx"], data=data_dir / "imagenet_sample", samples=12)
        metrics = report.outputs[0].metrics
        print(f"logits of {source.source.name}: {metrics.max_abs / metrics.peak:.2e} of the largest")
        assert report.passed
        assert metrics.max_abs <= limit * metrics.peak


def test_an_artifact_of_before_reads_as_without(tmp_path):
    directory = nano_artifact.copy_to(tmp_path / "artifact")
    document = json.loads((directory / "manifest.json").read_text())
    del document["preprocessing_in_graph"]
    (directory / "manifest.json").write_text(json.dumps(document))
    assert Predictor(directory, allow_unproven=True).manifest.preprocessing_in_graph is False
    with pytest.raises(ArtifactError):
        Predictor(directory, precision="int8", allow_unproven=True)


def test_the_command_line_passes_it_on(monkeypatch, tmp_path):
    from s2mlp_deploy.cli.main import main

    given = {}

    def export(*arguments, **options):
        given.update(options)
        raise ExportError("stop here")

    monkeypatch.setattr("s2mlp_deploy.api.export", export)
    for extra, wanted in ((["--with-preprocessing"], True), ([], False)):
        monkeypatch.setattr(
            "sys.argv", ["s2mlp-deploy", "export", "s2mlpv2_nano", "--output", str(tmp_path / "out"), *extra]
        )
        with pytest.raises(SystemExit):
            main()
        assert given["with_preprocessing"] is wanted
