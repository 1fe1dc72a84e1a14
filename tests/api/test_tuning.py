"""What `tune` decides, with candidates whose times are known; one run with real processes is in tests/cli."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from proven import parity_of

from s2mlp_deploy import api
from s2mlp_deploy.api import comparing, tune_steps, tuning
from s2mlp_deploy.api.tune_options import TuneOptions
from s2mlp_deploy.api.tune_state import Workplace
from s2mlp_deploy.api.tuning import tune
from s2mlp_deploy.artifact import METADATA_KEY, read_description, read_manifest
from s2mlp_deploy.bench.candidates import Graph
from s2mlp_deploy.bench.remembered import memory_file
from s2mlp_deploy.bench.timing import Run
from s2mlp_deploy.errors import ArtifactError, ExportError, InputError, OutputError, TargetError
from s2mlp_deploy.evidence.bench import Ratio
from s2mlp_deploy.evidence.parity import ParityReport, Weights
from s2mlp_deploy.evidence.store import read_evidence, save_record
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.files import sha256_of, user_cache
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.progress import no_progress
from s2mlp_deploy.serving.plan import plan_run

OPTIONS = TuneOptions(engines=("onnxruntime",), threads=1)
NOISE = (1.0, 1.01, 0.99, 1.02, 0.98)


class Lab:
    """Stands in place of processes: times by form and settings, and real outputs unless told otherwise."""

    def __init__(self) -> None:
        self.times = {"grouped-conv": 0.5}
        self.wrong: set[str] = set()
        self.started: list[str] = []
        self.interrupt_at = ""
        self.warnings: tuple[str, ...] = ()

    def ms(self, job) -> float:
        form = next((form for form in self.times if form in str(job.path)), "")
        slower = 1.5 if job.settings.optimize != "all" or job.settings.flush_denormals else 1.0
        return self.times.get(form, 1.0) * slower

    def track(self, job, _options):
        lab = self

        class Track:
            failure, shapes, rounds = "", {}, ()
            graph = Graph(str(job.path), api.read_manifest(lab.root).inputs, (), "")
            candidate = SimpleNamespace(name=str(job.path), runtime="onnxruntime 1 (CPU)")

            def __init__(self) -> None:
                self.job = job

            @property
            def alive(self) -> bool:
                return not self.failure

            def start(self, _: contextlib.ExitStack) -> None:
                lab.started.append(f"{job.path.parent.name} {job.settings.words}")
                if lab.interrupt_at and lab.interrupt_at in lab.started[-1]:
                    raise KeyboardInterrupt

            def warm_up(self) -> None:
                pass

            def run_round(self) -> None:
                ms = lab.ms(job) * NOISE[len(self.rounds) % 5]
                self.rounds += (Run(ms, ms),)

            def save_outputs(self, path) -> bool:
                array = np.array([[1.0, 2.0, 3.0]], np.float32)
                if any(form in str(job.path) for form in lab.wrong):
                    array = array + 0.5
                np.savez(path, logits=array)
                return True

            def end(self) -> None:
                pass

        return Track()

    def measure(self, jobs, _options, **_):
        first = self.ms(jobs[0])
        results = []
        for job in jobs:
            value = self.ms(job) / first
            ratio = Ratio("before", value, value * 0.99, value * 1.01) if job is not jobs[0] else None
            launches = (SimpleNamespace(wall_ms=(1.0,)),)
            ms = self.ms(job)
            results.append(
                SimpleNamespace(failure="", cpu_ratio=ratio, ratio=ratio, cpu_ms=ms, wall_ms=ms, launches=launches)
            )
        return SimpleNamespace(results=results, warnings=self.warnings)


@pytest.fixture
def lab(monkeypatch, artifact):
    made = Lab()
    made.root = artifact
    monkeypatch.setattr(tune_steps, "Track", made.track)
    monkeypatch.setattr(tune_steps, "measure", made.measure)

    def no_layouts(_):
        raise ExportError("there is one layout alone")

    def no_passes(_, __):
        raise ExportError("every graph pass has run")

    monkeypatch.setattr(tune_steps.Variants, "other_layouts", no_layouts)
    monkeypatch.setattr(tune_steps.Variants, "of_passes", no_passes)
    return made


def outcomes(report: TuneReport) -> dict[str, str]:
    return {f"{trial.form}, {trial.settings.words}": trial.outcome for trial in report.trials}


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
    with pytest.raises(ArtifactError, match="not measured"):
        plan_run(artifact)
    assert "nothing of it runs yet" in caplog.text
    assert "s2mlp-deploy parity" in caplog.text
    save_record(artifact, parity_of(own.path, own.sha256, weights=Weights.of(manifest.source)))
    assert plan_run(artifact).file == won.file
    assert all(trial.reason for trial in report.trials), "each says why"
    assert "there is one layout alone" in report.notes
    assert not [path for path in (user_cache() / "tune").rglob("*") if path.is_file()], "nothing is left to go on with"


def test_graph_passes_are_tried_on_the_best_file_last(lab, artifact, monkeypatch):
    made = []

    def of_passes(variants, variant):
        made.append(variant)
        return variants._write(load_graph(variant.path).model, "fp32", variant.layout, variant.shifts, passes="none")

    monkeypatch.setattr(tune_steps.Variants, "of_passes", of_passes)
    lab.times = {".none": 0.3, "grouped-conv": 0.5}
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.passes, won.file) == ("grouped-conv", "none", "model.fp32-tuned.onnx")
    assert "no graph pass" in won.name
    assert [item.form for item in made] == ["grouped-conv"], "of what led"
    # It is known for what it is when it is tuned again, and its passes are not tried again.
    lab.times["fp32-tuned"] = 0.3
    report = tune(artifact, OPTIONS)
    assert [(trial.passes, trial.file) for trial in report.winners] == [("none", won.file)]
    assert len(made) == 1
    assert {trial.passes for trial in report.trials if trial.form == "slice-concat"} == {"none"}, "made of what leads"
    # Where it wins no more, it is still what would be made.
    lab.times = {"grouped-conv": 0.5, "fp32-tuned": 2.0}
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.passes) == ("grouped-conv", "as exported")
    assert len(made) == 1


def test_however_little_time_there_is_what_ran_before_is_measured(lab, artifact, monkeypatch):
    monkeypatch.setattr(tune_steps.Tuning, "_may_go_on", False)
    report = tune(artifact, OPTIONS)
    assert [trial.file for trial in report.winners] == ["model.fp32.onnx"]
    assert report.trials[0].rounds


@pytest.mark.parametrize(
    ("engine", "clock"),
    [
        ("onnxruntime", "cpu"),
        ("onnxruntime:CPUExecutionProvider", "cpu"),
        ("openvino:cpu", "cpu"),
        ("openvino:GPU", "wall"),
    ],
)
def test_processor_time_counts_on_a_processor_however_it_is_named(artifact, tmp_path, engine, clock):
    manifest = read_manifest(artifact)
    run = tune_steps.Tuning(artifact, manifest, OPTIONS, (engine,), Workplace(tmp_path, "key"), no_progress)
    assert run._clock == clock


def test_what_another_version_has_begun_is_done_again(lab, artifact, monkeypatch):
    lab.interrupt_at = "optimized extended"
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, OPTIONS)
    lab.started, lab.interrupt_at = [], ""
    monkeypatch.setattr(tuning, "__version__", "99.0.0")
    tune(artifact, OPTIONS)
    assert any("pad-slice" in name or "slice-concat" in name for name in lab.started), "by other passes, maybe"


def test_passes_there_is_no_time_for_are_told(lab, artifact, monkeypatch):
    def of_passes(*_):
        raise AssertionError("nothing is made")

    monkeypatch.setattr(tune_steps.Variants, "of_passes", of_passes)
    settings = tune_steps.Tuning._other_settings

    def slowly(run):
        settings(run)
        run._place._since -= 3600

    monkeypatch.setattr(tune_steps.Tuning, "_other_settings", slowly)
    assert "there was no time for other graph passes in fp32" in tune(artifact, OPTIONS).notes


def test_what_computes_something_else_does_not_win(lab, artifact):
    lab.wrong = {"grouped-conv"}
    report = tune(artifact, OPTIONS)
    assert outcomes(report)["grouped-conv, 1 thread, no spinning"] == "parity"
    (won,) = report.winners
    assert won.file == "model.fp32.onnx"
    assert {record.path for record in read_manifest(artifact).files} == {"model.fp32.onnx"}
    assert read_evidence(artifact).of(ParityReport) == (), "compared with itself, a file proves nothing"


def test_who_is_faster_by_chance_alone_takes_nobodys_place(lab, artifact):
    lab.ms = lambda _: 1.0
    (won,) = tune(artifact, OPTIONS).winners
    assert won.file == "model.fp32.onnx"


def test_one_whose_rounds_scatter_hides_no_other_that_is_faster(lab, artifact, monkeypatch):
    times = {"grouped-conv": (0.3, 2.0, 0.3), "slice-concat": (0.7, 0.7, 0.7)}

    def track(job, options):
        made = Lab.track(lab, job, options)
        form = next((form for form in times if form in str(job.path)), "")
        if form:

            def run_round():
                ms = times[form][len(made.rounds) % 3]
                made.rounds += (Run(ms, ms),)

            made.run_round = run_round
        return made

    lab.times = {"grouped-conv": 0.6, "slice-concat": 0.7}
    lab.warnings = ("other programs kept 1.5 processors busy",)
    monkeypatch.setattr(tune_steps, "Track", track)
    report = tune(artifact, OPTIONS)
    (won,) = report.winners
    assert won.form == "slice-concat"
    scattered = next(trial for trial in report.trials if trial.form == "grouped-conv")
    assert "beyond chance" in scattered.reason
    assert "1.5 processors busy" in "".join(report.notes)


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


def failing_at_last(lab, monkeypatch, fails):
    """The last measurement, in which some fail."""

    def measure(jobs, options, **_):
        results = Lab.measure(lab, jobs, options).results
        for job, result in zip(jobs, results, strict=True):
            if fails(str(job.path)):
                result.failure, result.ratio, result.cpu_ratio = "it was killed", None, None
        return SimpleNamespace(results=results, warnings=())

    monkeypatch.setattr(tune_steps, "measure", measure)


def test_who_fails_at_last_makes_room_for_what_ran_before(lab, artifact, monkeypatch):
    failing_at_last(lab, monkeypatch, lambda path: "grouped-conv" in path)
    report = tune(artifact, OPTIONS)
    assert [won.file for won in report.winners] == ["model.fp32.onnx"]
    assert [trial.reason for trial in report.trials if trial.outcome == "failed"] == ["it was killed"]
    # What ran before fails, and the other one does not: the race has told which is faster.
    failing_at_last(lab, monkeypatch, lambda path: path.endswith("model.fp32.onnx"))
    (won,) = tune(artifact, OPTIONS).winners
    assert (won.form, won.ratio.high < 1) == ("grouped-conv", True)


def test_where_all_fail_at_last_an_earlier_tuning_stays(lab, artifact, monkeypatch):
    tune(artifact, OPTIONS)
    files, memory = read_manifest(artifact).files, memory_file().read_bytes()
    lab.times["fp32-tuned"] = 0.4
    failing_at_last(lab, monkeypatch, lambda _: True)
    assert tune(artifact, OPTIONS).winners == ()
    assert read_manifest(artifact).files == files
    assert (artifact / "model.fp32-tuned.onnx").is_file()
    assert memory_file().read_bytes() == memory


def test_a_file_that_an_earlier_tuning_made_is_not_taken_for_another(lab, artifact, monkeypatch, tmp_path):
    tune(artifact, OPTIONS)
    files = read_manifest(artifact).files
    lab.times = {"fp32-tuned": 0.4}
    again = tmp_path / "again" / "model.fp32-tuned.onnx"
    again.parent.mkdir()
    again.write_bytes((artifact / again.name).read_bytes() + b"\n")

    def of_layout(variants, _):
        return (replace(variants.own()[-1], file="", place=str(again), sha256=sha256_of(again)),), ()

    monkeypatch.setattr(tune_steps.Variants, "other_layouts", lambda _: ("other",))
    monkeypatch.setattr(tune_steps.Variants, "of_layout", of_layout)
    (won,) = tune(artifact, OPTIONS).winners
    assert won.file == again.name
    assert read_manifest(artifact).files == files


def test_nothing_is_changed_for_a_file_that_was_not_measured(lab, artifact, monkeypatch):
    adopted, files = tune_steps.Variants.adopted, read_manifest(artifact).files

    def other(variants, variant, staging):
        facts = adopted(variants, variant, staging)
        (staging / "model.fp32-tuned.onnx").write_bytes(b"another")
        return facts

    monkeypatch.setattr(tune_steps.Variants, "adopted", other)
    with pytest.raises(ArtifactError, match="replaced while it was tuned"):
        tune(artifact, OPTIONS)
    assert read_manifest(artifact).files == files
    assert not (artifact / "model.fp32-tuned.onnx").exists()


def test_an_interrupted_tuning_goes_on_where_it_was(lab, artifact):
    lab.interrupt_at = "optimized extended"
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, OPTIONS)
    assert {record.path for record in read_manifest(artifact).files} == {"model.fp32.onnx"}
    begun, lab.started = list(lab.started), []
    # Of other noise, nothing is taken over: what was measured is told with its seed.
    with pytest.raises(KeyboardInterrupt):
        tune(artifact, replace(OPTIONS, seed=1))
    assert lab.started == begun
    lab.started, lab.interrupt_at = [], ""
    report = tune(artifact, OPTIONS)
    assert report.winners[0].form == "grouped-conv"
    assert any("pad-slice" in name or "slice-concat" in name for name in begun)
    assert not any("pad-slice" in name or "slice-concat" in name for name in lab.started), "it was measured before"


def test_quantized_files_win_with_accuracy_and_go_with_their_ranges(lab, artifact, captured, images):
    options = api.PrecisionOptions(data=images, samples=8, eval_samples=8, speed_check=False)
    # Two forms that give constants of the same names other meanings.
    api.export(captured, artifact, shift_form="slice-concat", force=True)
    api.quantize(artifact, options)
    lab.times = {"int8.channels-last.row-gather": 0.1, "int8-tuned": 0.1}
    first, second = tune(artifact, OPTIONS).winners
    assert (first.file, second.file) == ("model.int8-tuned.onnx", "model.fp32.onnx")
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
    tune(artifact, OPTIONS)
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

    monkeypatch.setattr(tune_steps, "measure", meddle)
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


def test_a_cache_that_cannot_be_written_is_told_and_tuning_goes_on(lab, artifact, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tune(artifact, OPTIONS).winners[0].form == "grouped-conv"
    assert "begins anew" in caplog.text
    assert "not remembered" in caplog.text


def test_a_user_without_a_home_tunes_too(lab, artifact, monkeypatch, caplog):
    from s2mlp_deploy.api import tune_state

    def nowhere():
        raise OutputError("this user has no home")

    monkeypatch.setattr(tune_state, "user_cache", nowhere)
    assert tune(artifact, OPTIONS).winners[0].form == "grouped-conv"
    assert "begins anew (this user has no home)" in caplog.text


def test_two_tunings_of_the_same_do_not_measure_at_once(monkeypatch, caplog):
    from s2mlp_deploy.api import tune_state

    monkeypatch.setattr(tune_state, "_WAIT", 0.05)
    with tune_state.workplace("the same"):
        with pytest.raises(OutputError, match="has been writing here"), tune_state.workplace("the same"):
            pytest.fail("it went on")
        with tune_state.workplace("another"):
            pass
    assert "begins anew" not in caplog.text


def test_what_changed_while_another_tuning_was_waited_for_is_not_measured(lab, artifact, monkeypatch):
    wait = tuning.workplace

    def waiting(asked):
        path = artifact / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["files"][0]["sha256"] = "0" * 64
        path.write_text(json.dumps(manifest))
        return wait(asked)

    monkeypatch.setattr(tuning, "workplace", waiting)
    with pytest.raises(ArtifactError, match="another tuning"):
        tune(artifact, OPTIONS)
    assert lab.started == []
    assert not any((user_cache() / "tune").iterdir()), "what has not begun leaves nothing"


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
        ({"batch": 0}, InputError, "--batch"),
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
