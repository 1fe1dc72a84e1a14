"""What `tune` makes of an artifact, with candidates whose times are known; real processes run in tests/cli."""

from __future__ import annotations

import json
from dataclasses import replace

import fake_speed
import onnx_ir as ir
import pytest
from proven import parity_of
from tune_lab import OPTIONS, Lab

from s2mlp_deploy import api
from s2mlp_deploy.api import comparing, tune_final, tune_steps, tuning
from s2mlp_deploy.api.tune_options import TuneOptions
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.api.variants import Variants
from s2mlp_deploy.artifact import METADATA_KEY, read_description, read_manifest
from s2mlp_deploy.bench.remembered import memory_file
from s2mlp_deploy.errors import ArtifactError, InputError, OutputError, TargetError
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.parity import ParityReport, Weights
from s2mlp_deploy.evidence.store import read_evidence, save_record
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.files import sha256_of, user_cache
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.serving.plan import plan_run


def test_the_fastest_form_becomes_part_of_the_artifact(lab, artifact, caplog):
    before = read_manifest(artifact)
    report = tune(artifact, OPTIONS)
    (won,) = report.winners
    assert (won.form, won.file, won.engine) == ("grouped-conv", "model.fp32-tuned.onnx", "onnxruntime")
    assert won.ratio.value == 0.5
    assert report.clock == "cpu"
    manifest = read_manifest(artifact)
    assert manifest.file("fp32") == before.file("fp32"), "the file that was exported stays what it is"
    (record,) = [item for item in manifest.files if item.path == won.file]
    assert (record.sha256, record.precision) == (won.sha256, "fp32")
    saved = read_evidence(artifact)
    assert saved.one(TuneReport) == report
    (parity,) = [item.record for item in saved.of(ParityReport) if item.record.file == won.file]
    assert parity.passed
    assert parity.file_sha256 == won.sha256
    own = manifest.file("fp32")
    assert parity.rests_on == ((own.path, own.sha256),)
    (modules,) = [item.record for item in saved.of(ModulesReport) if item.record.file == won.file]
    assert modules.file_sha256 == won.sha256, "so that the report can draw it"
    with pytest.raises(ArtifactError, match="not measured"):
        plan_run(artifact)
    assert "nothing of it runs yet" in caplog.text
    assert "s2mlp-deploy parity" in caplog.text
    save_record(artifact, parity_of(own.path, own.sha256, weights=Weights.of(manifest.source)))
    assert plan_run(artifact).file == won.file
    assert all(trial.reason for trial in report.trials), "each says why"
    assert "there is one layout alone" in report.notes
    assert not [path for path in (user_cache() / "tune").rglob("*") if path.is_file()], "nothing is left to go on with"


def test_a_tuned_file_that_wins_no_more_leaves_the_artifact(lab, artifact):
    tune(artifact, OPTIONS)
    assert (artifact / "model.fp32-tuned.onnx").is_file()
    lab.times = {"pad-slice": 1.0, "fp32-tuned": 3.0, "grouped-conv": 3.0}
    report = tune(artifact, OPTIONS)
    assert [won.file for won in report.winners] == ["model.fp32.onnx"]
    assert not (artifact / "model.fp32-tuned.onnx").exists()
    assert [record.path for record in read_manifest(artifact).files] == ["model.fp32.onnx"]
    assert {trial.file for trial in report.trials} == {"model.fp32.onnx", ""}, "what is gone has no name"


def test_a_tuned_file_that_another_one_replaces_does_not_share_its_name(lab, artifact):
    tune(artifact, OPTIONS)
    lab.times = {"slice-concat": 0.3, "fp32-tuned": 0.9}
    report = tune(artifact, OPTIONS)
    (won,) = report.winners
    assert (won.form, won.file) == ("slice-concat", "model.fp32-tuned.onnx")
    assert {trial.sha256 for trial in report.trials if trial.file == won.file} == {won.sha256}


def test_a_file_that_an_earlier_tuning_made_is_not_taken_for_another(lab, artifact, monkeypatch, tmp_path):
    tune(artifact, OPTIONS)
    files = read_manifest(artifact).files
    lab.times = {"fp32-tuned": 0.4}
    again = tmp_path / "again" / "model.fp32-tuned.onnx"
    again.parent.mkdir()
    again.write_bytes((artifact / again.name).read_bytes() + b"\n")

    def of_layout(variants, _):
        return (replace(variants.own[-1], file="", place=str(again), sha256=sha256_of(again)),), ()

    monkeypatch.setattr(Variants, "other_layouts", lambda _: ("other",))
    monkeypatch.setattr(Variants, "of_layout", of_layout)
    (won,) = tune(artifact, OPTIONS).winners
    assert won.file == again.name
    assert read_manifest(artifact).files == files


def test_nothing_is_changed_for_a_file_that_was_not_measured(lab, artifact, monkeypatch):
    adopted, files = Variants.adopted, read_manifest(artifact).files

    def other(variants, variant, staging):
        facts = adopted(variants, variant, staging)
        (staging / "model.fp32-tuned.onnx").write_bytes(b"another")
        return facts

    monkeypatch.setattr(Variants, "adopted", other)
    with pytest.raises(ArtifactError, match="replaced while it was tuned"):
        tune(artifact, OPTIONS)
    assert read_manifest(artifact).files == files
    assert not (artifact / "model.fp32-tuned.onnx").exists()


def test_quantized_files_win_with_accuracy_and_go_with_their_ranges(lab, artifact, captured, images, monkeypatch):
    options = api.PrecisionOptions(data=images, samples=8, eval_samples=8, speed_check=False)
    # Two forms that give constants of the same names other meanings.
    api.export(captured, artifact, shift_form="slice-concat", force=True)
    api.quantize(artifact, options)
    lab.times = {"int8.channels-last.row-gather": 0.1, "int8-tuned": 0.1}
    machine = tune_steps.this_machine()
    monkeypatch.setattr(tune_steps, "this_machine", lambda: replace(machine, processor=fake_speed.WITHOUT_VNNI))
    found = tune(artifact, OPTIONS)
    first, second = found.winners
    assert (first.file, second.file) == ("model.int8-tuned.onnx", "model.fp32.onnx")
    assert any("--reduce-range" in note for note in found.notes)
    # Its weights are those of float32; what names sizes and places in another form is of another form.
    graph = load_graph(artifact / first.file).model
    text = graph.metadata_props[METADATA_KEY]
    described = read_description(text, artifact / first.file)
    shifts = [shift.spec for shift in read_manifest(artifact).shifts]
    judged = artifact / first.file, graph.graph, described, captured.source, shifts
    proof = comparing._proof(*judged)
    assert proof.failures == ()
    assert proof.constants > 10
    weight = next(value for name, value in graph.graph.initializers.items() if name.endswith(".quantized"))
    weight.const_value = ir.tensor(weight.const_value.numpy() // 2)
    (told,) = comparing._proof(*judged).failures
    assert str(weight.name) in told
    assert (artifact / first.file).is_file()
    saved = {path: path.read_bytes() for path in (artifact / "evidence").glob("accuracy-*.json")}
    for path in saved:
        path.unlink()
    report = tune(artifact, OPTIONS)
    assert [trial.number_type for trial in report.winners] == ["fp32"]
    told = {trial.outcome: trial.reason for trial in report.trials if trial.precision == "int8"}
    assert "quantize" in told["accuracy"], "nobody has measured what it scores"
    for path, content in saved.items():
        path.write_bytes(content)
    monkeypatch.setattr(tune_steps, "this_machine", lambda: replace(machine, processor=fake_speed.VNNI))
    assert not any("--reduce-range" in note for note in tune(artifact, OPTIONS).notes)
    assert (artifact / "model.int8-tuned.onnx").is_file()
    # New ranges: what was tuned has the older ones.
    api.quantize(artifact, options)
    assert not (artifact / "model.int8-tuned.onnx").exists()
    assert not any("int8-tuned" in record.path for record in read_manifest(artifact).files)


def test_an_artifact_that_changed_meanwhile_gets_nothing(lab, artifact, monkeypatch):
    def meddle(jobs, options, **_):
        manifest = json.loads((artifact / "manifest.json").read_text())
        manifest["files"][0]["sha256"] = "0" * 64
        (artifact / "manifest.json").write_text(json.dumps(manifest))
        return Lab.measure(lab, jobs, options)

    monkeypatch.setattr(tune_final, "measure", meddle)
    with pytest.raises(ArtifactError, match="changed while it was tuned"):
        tune(artifact, OPTIONS)
    assert not (artifact / "model.fp32-tuned.onnx").exists()


def test_a_later_export_takes_what_was_found(lab, artifact, captured, tmp_path, caplog):
    tune(artifact, OPTIONS)
    assert memory_file().is_file()
    result = api.export(captured, tmp_path / "later")
    assert {shift.form for shift in result.manifest.shifts} == {"grouped-conv"}
    assert any("grouped-conv" in note and "tune" in note for note in result.manifest.notes)
    plain = api.export(captured, tmp_path / "plain", shift_form="pad-slice")
    assert {shift.form for shift in plain.manifest.shifts} == {"pad-slice"}
    assert plain.manifest.notes == ()


def test_a_busy_artifact_is_told_and_nothing_is_measured_twice(lab, artifact, monkeypatch):
    from s2mlp_deploy.artifact import writer

    monkeypatch.setattr(writer, "_WRITER_WAIT", 0.1)
    with api_writer(artifact), pytest.raises(OutputError, match="has been writing here"):
        tune(artifact, OPTIONS)
    lab.started = []
    assert tune(artifact, OPTIONS).winners[0].form == "grouped-conv"
    assert lab.started == []


def api_writer(directory):
    from s2mlp_deploy.artifact import ArtifactWriter

    return ArtifactWriter(directory, force=True)


def test_what_could_not_be_written_is_refused_before_anything_is_measured(lab, artifact):
    (artifact / "model.fp32-tuned.onnx").write_text("mine")
    with pytest.raises(OutputError, match=r"holds model\.fp32-tuned\.onnx, which would be replaced"):
        tune(artifact, OPTIONS)
    assert lab.started == []
    assert (artifact / "model.fp32-tuned.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"minutes": 0}, InputError, "--minutes"),
        ({"minutes": float("nan")}, InputError, "--minutes"),
        ({"threads": 0}, InputError, "--threads"),
        ({"threads": 10**9}, InputError, "--threads"),
        ({"batch": 0}, InputError, "--batch"),
        ({"batch": 2**31}, InputError, "--batch"),
        ({"seed": -1}, InputError, "--seed"),
    ],
)
def test_numbers_out_of_range_are_refused(options, kind, says):
    with pytest.raises(kind, match=says):
        TuneOptions(**options)


def test_more_threads_than_processors_are_told(lab, artifact, monkeypatch, caplog):
    monkeypatch.setattr(tuning, "workplace", lambda _: pytest.fail("it is told before anything is measured"))
    with pytest.raises(pytest.fail.Exception):
        tune(artifact, replace(OPTIONS, threads=4000))
    assert "4000 threads share" in caplog.text


def test_engines_that_are_not_here_are_refused(lab, artifact, monkeypatch):
    with pytest.raises(TargetError, match="no engine 'tvm'"):
        tune(artifact, replace(OPTIONS, engines=("tvm",)))
    gone = tuple(replace(item, available=False, install_hint="pip install it") for item in tuning.statuses())
    monkeypatch.setattr(tuning, "statuses", lambda: gone)
    with pytest.raises(TargetError, match="openvino is not installed"):
        tune(artifact, replace(OPTIONS, engines=("openvino",)))
    with pytest.raises(TargetError, match="no engine that runs ONNX files"):
        tune(artifact, replace(OPTIONS, engines=()))


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not an artifact"):
        tune(tmp_path, OPTIONS)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="no artifact"):
        tune(tmp_path / "a.onnx", OPTIONS)
