"""What of an artifact runs: every reason for it, on records alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import report_samples
from proven import prove
from report_samples import FILE, INT8
from tiny_artifact import make_manifest

from s2mlp_deploy.artifact import ArtifactWriter, read_manifest
from s2mlp_deploy.errors import ArtifactError, InputError, TargetError
from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.store import save_record
from s2mlp_deploy.evidence.tune import EngineSettings
from s2mlp_deploy.gpu import Gpu
from s2mlp_deploy.serving import plan
from s2mlp_deploy.serving.plan import plan_run

TUNED = "model.fp32-tuned.onnx"
FACTS = {FILE: ("fp32", 7), INT8: ("int8", 9), TUNED: ("fp32-tuned", 7)}


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    """Three files, nothing known of them; ONNX Runtime and OpenVINO are installed."""
    monkeypatch.setattr(plan, "is_here", lambda kind: kind in ("onnxruntime", "openvino"))
    with ArtifactWriter(tmp_path / "a") as writer:
        for name in FACTS:
            (writer.staging / name).write_bytes(name.encode())
        writer.commit(make_manifest(), FACTS)
    return tmp_path / "a"


def hash_of(artifact, file):
    return next(record.sha256 for record in read_manifest(artifact).files if record.path == file)


def timed(artifact, *, engine="onnxruntime", ratio=0.5):
    """int8 takes half the time of float32."""
    fp32, int8, _ = report_samples.bench().results
    first = replace(fp32, candidate=replace(fp32.candidate, sha256=hash_of(artifact, FILE)))
    second = replace(int8.candidate, sha256=hash_of(artifact, INT8), engine=engine)
    interval = Ratio("first", ratio, ratio - 0.02, ratio + 0.02)
    return replace(
        report_samples.bench(), results=(first, replace(int8, candidate=second, ratio=interval, warnings=()))
    )


def tuned(artifact, **changes):
    """OpenVINO with two threads wins on the tuned file, and int8 on ONNX Runtime comes second."""
    report = report_samples.tune()
    before, won, int8, *_ = report.trials
    settings = EngineSettings(threads=2, spin=False, optimize="extended")
    first = replace(
        won, file=TUNED, precision="fp32-tuned", sha256=hash_of(artifact, TUNED), settings=settings, ratio=None
    )
    second = replace(int8, precision="int8", sha256=hash_of(artifact, INT8), engine="onnxruntime")
    ratios = {"first": Ratio("b", 0.4, 0.39, 0.41), "second": Ratio("b", 0.6, 0.59, 0.61)}
    first, second = replace(first, ratio=ratios["first"]), replace(second, ratio=ratios["second"])
    return replace(report, trials=(before, replace(first, **changes), second))


def picked(found):
    return found.file, found.engine, found.basis


def test_nothing_measured_is_float32_on_onnx_runtime(artifact):
    found = plan_run(prove(artifact))
    assert picked(found) == (FILE, "onnxruntime", "rule")
    assert found.proven
    assert found.settings == EngineSettings()


def test_openvino_runs_what_nothing_else_can(artifact, monkeypatch):
    monkeypatch.setattr(plan, "is_here", lambda kind: kind == "openvino")
    assert plan_run(prove(artifact)).engine == "openvino"


def test_the_fastest_measured_file_is_taken_on_the_engine_it_was_fastest_on(artifact):
    save_record(prove(artifact, candidate="openvino (CPU)"), timed(artifact, engine="openvino"))
    prove(artifact, "fp32")
    found = plan_run(artifact)
    assert picked(found) == (INT8, "openvino", "bench")
    assert "1 ms" in found.why
    # The figure that the table of `bench` shows, and the report: the median of single runs, not of rounds.
    report = timed(artifact, engine="openvino")
    first, second = report.results
    other = replace(second, latency=replace(second.latency, p50=0.75))
    save_record(artifact, replace(report, results=(first, other)))
    assert "0.75 ms" in plan_run(artifact).why


@pytest.mark.parametrize(
    ("precisions", "engine", "says"),
    [
        (("fp32",), "onnxruntime", "parity was not measured"),  # Nobody compared int8.
        (("fp32", "int8"), "tensorrt", ""),  # Its engine is not here.
    ],
)
def test_what_is_faster_and_unproven_or_not_here_is_not_taken(artifact, precisions, engine, says):
    save_record(prove(artifact, *precisions), timed(artifact, engine=engine))
    found = plan_run(artifact)
    assert picked(found) == (FILE, "onnxruntime", "bench")
    assert says in found.objections.get(INT8, "")


def test_faster_on_an_engine_on_which_nobody_compared_it_is_told(artifact):
    save_record(prove(artifact), timed(artifact, engine="openvino"))
    found = plan_run(artifact)
    assert found.file == FILE
    assert any(f"{INT8} on openvino was measured faster" in note for note in found.notes)


def test_what_tune_chose_is_taken_and_opened_as_it_chose(artifact):
    save_record(prove(artifact), timed(artifact))
    save_record(artifact, tuned(artifact))
    found = plan_run(artifact)
    assert picked(found) == (TUNED, "openvino", "tune")
    assert found.settings == EngineSettings(threads=2, spin=False, optimize="extended")
    assert found.why.startswith("`tune` found it fastest of 3, 1.6 ms")  # For a fourth there was no time.
    own = plan_run(artifact, threads=3, flush_denormals=True)
    assert own.settings == replace(found.settings, threads=3, flush_denormals=True)


@pytest.mark.parametrize(
    ("changes", "asked", "file"),
    [
        ({"sha256": "0" * 64}, {}, INT8),  # The file has changed since.
        ({"engine": "tensorrt-rtx"}, {}, INT8),  # Not installed here.
        ({}, {"engine": "onnxruntime"}, INT8),
        ({}, {"precision": "int8"}, INT8),
        ({}, {"precision": "fp32"}, FILE),  # Nothing of it was measured.
    ],
)
def test_of_what_tune_measured_the_best_that_fits(artifact, changes, asked, file):
    save_record(prove(artifact), tuned(artifact, **changes))
    found = plan_run(artifact, **asked)
    assert found.file == file
    assert found.basis == ("asked" if file == FILE else "tune")


def test_what_tune_chose_without_parity_is_not_taken(artifact):
    save_record(prove(artifact, "fp32"), tuned(artifact))
    found = plan_run(artifact)
    assert picked(found) == (FILE, "onnxruntime", "rule")
    assert any(TUNED in note and "was not measured" in note for note in found.notes)


@pytest.mark.parametrize("asked", [{}, {"precision": "int8"}, {"engine": "openvino"}])
def test_without_parity_nothing_runs_unless_that_is_asked_for(artifact, asked):
    with pytest.raises(ArtifactError) as caught:
        plan_run(artifact, **asked)
    assert "s2mlp-deploy parity tiny" in (caught.value.fix or "")
    assert "--allow-unproven" in (caught.value.fix or "")
    assert not plan_run(artifact, **asked, allow_unproven=True).proven


def test_weights_that_are_not_at_hand_are_asked_for(tmp_path, monkeypatch):
    source = replace(make_manifest().source, checkpoint="w.safetensors", checkpoint_sha256="c" * 64, seed=None)
    with ArtifactWriter(tmp_path / "a") as writer:
        (writer.staging / FILE).write_bytes(b"graph")
        writer.commit(replace(make_manifest(), source=source), {FILE: ("fp32", 7)})

    def fix():
        with pytest.raises(ArtifactError) as caught:
            plan_run(tmp_path / "a")
        return caught.value.fix or ""

    assert "--checkpoint PATH where w.safetensors lies elsewhere" in fix()
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert "--checkpoint" not in fix()


def test_a_file_that_fails_is_not_said_to_be_unmeasured(artifact):
    prove(artifact, failures=("far off",))
    with pytest.raises(ArtifactError, match=r"fp32\.onnx FAILS") as caught:
        plan_run(artifact, precision="fp32")
    assert "parity tiny" not in (caught.value.fix or "")
    assert plan_run(artifact, allow_unproven=True).parity == "fails"


def test_parity_that_fails_on_another_engine_counts_where_nothing_else_was_compared(artifact):
    prove(artifact, candidate="openvino (CPU)", failures=("far off",))
    with pytest.raises(ArtifactError, match=r"fp32\.onnx FAILS on openvino") as caught:
        plan_run(artifact, precision="fp32")
    assert f"s2mlp-deploy parity tiny {artifact};" in (caught.value.fix or "")
    prove(artifact)
    found = plan_run(artifact, precision="fp32", engine="onnxruntime")
    assert (found.parity, found.notes) == ("holds", ())
    assert picked(plan_run(artifact)) == (FILE, "onnxruntime", "rule")
    prove(artifact, "int8", candidate="openvino (CPU)")  # Which does not make it the less changed one.
    found = plan_run(artifact)
    assert (picked(found), found.objections) == ((FILE, "onnxruntime", "rule"), {})
    with pytest.raises(ArtifactError, match=r"fp32\.onnx FAILS on openvino"):
        plan_run(artifact, precision="fp32", engine="openvino")


def test_what_measures_parity_names_the_engine(artifact):
    with pytest.raises(ArtifactError) as caught:
        plan_run(artifact, engine="openvino:CPU")
    assert f"parity tiny {artifact} --engine openvino:CPU" in (caught.value.fix or "")


def test_parity_of_an_older_file_is_none(artifact):
    prove(artifact, file_sha256="1" * 64)
    with pytest.raises(ArtifactError, match="older file"):
        plan_run(artifact, precision="fp32")


def test_parity_on_another_engine_is_told(artifact):
    (note,) = plan_run(prove(artifact), engine="openvino", precision="fp32").notes
    assert "not on openvino" in note
    assert "--engine openvino" in note


def test_engines_that_do_not_exist_are_refused(artifact):
    with pytest.raises(TargetError, match="no engine 'tensorflow'"):
        plan_run(artifact, engine="tensorflow")


# Engines that were built for a GPU


@pytest.fixture
def built(artifact, monkeypatch):
    """An engine of the float32 file for a GPU that is here."""
    prove(artifact)
    record = replace(report_samples.build(), onnx_sha256=hash_of(artifact, FILE), precision="fp32")
    (artifact / record.engine).write_bytes(b"engine")
    save_record(artifact, record, "fp32")
    monkeypatch.setattr(plan, "fits_here", lambda record: "sm86" in record.targets)
    monkeypatch.setattr(plan, "is_here", lambda _: True)
    return artifact, record


def test_an_engine_for_the_gpu_that_is_here_is_taken_when_it_is_proven(built):
    artifact, record = built
    assert any(record.engine in note for note in plan_run(artifact).notes)
    prove_engine(artifact, record)
    found = plan_run(artifact)
    assert (found.file, found.engine, found.basis, found.is_built) == (record.engine, "tensorrt-rtx", "engine", True)
    assert plan_run(artifact, engine="onnxruntime").file == FILE
    # An option that nothing would use.
    with pytest.raises(InputError, match="decided when it was built"):
        plan_run(artifact, flush_denormals=True)
    assert plan_run(artifact, engine="onnxruntime", flush_denormals=True).settings.flush_denormals


def prove_engine(artifact, record):
    from proven import parity_of

    from s2mlp_deploy.evidence.parity import Weights

    weights = Weights.of(read_manifest(artifact).source)
    held = parity_of(record.engine, record.engine_sha256, candidate="tensorrt-rtx 1.7 (sm86)", weights=weights)
    save_record(artifact, held)


def test_an_engine_is_measured_by_its_own_name(built):
    artifact, record = built
    with pytest.raises(ArtifactError) as caught:
        plan_run(artifact, engine="tensorrt-rtx")
    assert f"parity tiny {artifact / record.engine};" in (caught.value.fix or "")


def test_an_engine_for_another_gpu_is_left_alone(built):
    artifact, record = built
    save_record(artifact, replace(record, targets=("sm120",)), "fp32")
    prove_engine(artifact, record)
    assert plan_run(artifact).file == FILE
    # What keeps it from running is told when it is opened.
    assert plan_run(artifact, engine="tensorrt-rtx").file == record.engine


def test_an_engine_that_was_asked_for_and_never_built_names_the_command(built):
    artifact, _ = built
    with pytest.raises(ArtifactError, match="no engine of tensorrt was built") as caught:
        plan_run(artifact, engine="tensorrt")
    assert f"s2mlp-deploy build {artifact} --engine tensorrt" in (caught.value.fix or "")


@pytest.mark.parametrize(("targets", "fits"), [(("sm89",), True), (("sm86",), False)])
def test_an_engine_fits_where_every_gpu_runs_it(monkeypatch, targets, fits):
    from s2mlp_deploy.engines import registry
    from s2mlp_deploy.engines.base import EngineStatus

    monkeypatch.setattr(registry, "gpus", lambda: (Gpu("Some GPU", "sm89", "570", 8192),))
    record = replace(report_samples.build(), targets=targets, platform=registry_platform())
    status = EngineStatus("tensorrt-rtx", True, version=record.version)
    monkeypatch.setattr(registry, "_function", lambda _: lambda: status)
    assert registry.fits_here(record) is fits
    lacking = replace(status, missing="cuda-bindings, which runs engines")
    monkeypatch.setattr(registry, "_function", lambda _: lambda: lacking)
    assert not registry.fits_here(record)
    monkeypatch.setattr(registry, "_function", lambda _: lambda: status)
    # CUDA's first may be either of them.
    both = (Gpu("Some GPU", "sm89", "570", 8192), Gpu("Another", "sm86", "570", 8192))
    monkeypatch.setattr(registry, "gpus", lambda: both)
    assert not registry.fits_here(record)
    monkeypatch.setattr(registry, "gpus", lambda: ())
    assert not registry.fits_here(record)


def registry_platform():
    from s2mlp_deploy.engines.record import this_platform

    return this_platform()
