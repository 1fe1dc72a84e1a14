"""The artifact appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nano_artifact
import pytest

from s2mlp_deploy.artifact import (
    MANIFEST,
    ArtifactWriter,
    CalibrationRecord,
    FileRecord,
    Manifest,
    PrecisionException,
    SourceInfo,
    TensorInfo,
    check_output,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.errors import ArtifactError, OutputError, S2MLPDeployError
from s2mlp_deploy.files import replacing, sha256_of, to_json, write_file


def make_manifest(**changes) -> Manifest:
    values = {
        "name": "tiny",
        "source": SourceInfo("tiny", {"dims": [4]}, seed=0),
        "preprocessing": None,
        "classes": ("no", "yes"),
        "inputs": (TensorInfo("input", "float32", ("batch", 3)),),
        "outputs": (TensorInfo("logits", "float32", ("batch", 2)),),
        "opset": 20,
        "shifts": (),
        "tools": {"onnx": "1"},
    }
    return Manifest(**(values | changes))


def write_tiny(directory: Path, content: bytes = b"graph", *, force: bool = False, **changes) -> Manifest:
    with ArtifactWriter(directory, force=force) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(content)
        return writer.commit(make_manifest(**changes), {"model.fp32.onnx": ("fp32", 7)})


class CrashError(Exception):
    """Something nobody expected."""


def write_half(directory: Path, error: type[BaseException] = CrashError, *, force: bool = False) -> None:
    with ArtifactWriter(directory, force=force) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"half")
        raise error


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing past ``size`` bytes fails with an OSError, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# One file


def test_replacing_puts_the_new_content_in_place(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("crash"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_crash_while_replacing_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def crash():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        crash()
    assert nano_artifact.snapshot(tmp_path) == {"file.bin": b"old"}


def test_a_replaced_file_gets_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_file(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_while_writing_a_file_names_the_file_and_leaves_nothing(tmp_path):
    with largest_file(1000), pytest.raises(OutputError) as caught:
        write_file(tmp_path / "file.bin", bytes(5000))
    assert str(tmp_path / "file.bin") in str(caught.value)
    assert "fix:" in str(caught.value)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_json_of_a_name_that_is_not_utf8_can_be_written_and_read():
    document = json.loads(to_json({"image": os.fsdecode(b"b\xff.png"), "n": [1, ("é",)]}))
    assert document == {"image": "b?.png", "n": [1, ["é"]]}


def test_json_holds_paths_as_text(tmp_path):
    assert json.loads(to_json({"out": tmp_path, "odd": Path(os.fsdecode(b"\xff"))})) == {
        "out": str(tmp_path),
        "odd": "?",
    }


# Manifest


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    written = write_tiny(tmp_path / "out")
    assert read_manifest(tmp_path / "out") == written
    assert written.files == (
        FileRecord("model.fp32.onnx", "fp32", hashlib.sha256(b"graph").hexdigest(), len(b"graph"), 7),
    )


def test_a_directory_without_a_manifest_is_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match=r"not an artifact.*\n.*manifest\.json\n.*s2mlp-deploy export"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged"),
        (b"not json", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b"null", "damaged"),
        (b'{"schema_version": 1}', "damaged.*missing required field"),
        (b'{"schema_version": 2}', "schema version 2, this package reads 1"),
        (b"{}", "schema version None"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_why_and_what_to_do(tmp_path, content, says):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=says) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / MANIFEST) in str(caught.value)
    assert "export again" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("opset", "twenty"), ("files", {}), ("inputs", [{"name": "x"}]), ("name", None)]
)
def test_a_field_of_another_type_is_named(tmp_path, field, value):
    write_tiny(tmp_path)
    document = json.loads((tmp_path / MANIFEST).read_text())
    document[field] = value
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=rf"damaged.*\$\.{field}"):
        read_manifest(tmp_path)


def test_a_precision_that_is_not_there_lists_those_that_are():
    manifest = make_manifest(files=(FileRecord("model.fp32.onnx", "fp32", "", 0, 0),))
    assert manifest.file("fp32").path == "model.fp32.onnx"
    with pytest.raises(ArtifactError, match=r"no fp16 file\n.*fp32"):
        manifest.file("fp16")


def test_metadata_holds_neither_files_nor_anything_the_files_decide():
    manifest = make_manifest(files=(FileRecord("model.fp32.onnx", "fp32", "hash", 9, 9),))
    document = json.loads(manifest.timeless("fp16"))
    assert document["precision"] == "fp16"
    assert "files" not in document
    assert manifest.timeless("fp32") == make_manifest().timeless("fp32")


def test_an_untouched_file_verifies(tmp_path):
    manifest = write_tiny(tmp_path)
    assert verify_file(tmp_path, manifest.files[0]) == tmp_path / "model.fp32.onnx"


def test_a_changed_file_and_a_missing_one_are_told_apart(tmp_path):
    record = write_tiny(tmp_path).files[0]
    path = tmp_path / record.path
    path.write_bytes(b"grapH")
    with pytest.raises(
        ArtifactError, match=r"not the one its manifest describes[\s\S]*model\.fp32\.onnx[\s\S]*--force"
    ):
        verify_file(tmp_path, record)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"missing[\s\S]*model\.fp32\.onnx[\s\S]*--force"):
        verify_file(tmp_path, record)


def test_hashes_are_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# Writing an artifact


@pytest.mark.parametrize("error", [CrashError, KeyboardInterrupt, SystemExit])
def test_an_exception_removes_staging_and_every_directory_it_made(tmp_path, error):
    with pytest.raises(error):
        write_half(tmp_path / "a" / "b" / "c", error)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_a_directory_that_was_there(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with pytest.raises(CrashError):
        write_half(tmp_path)
    assert nano_artifact.snapshot(tmp_path) == {"notes.txt": b"mine"}


def test_leaving_without_a_commit_writes_nothing(tmp_path):
    with ArtifactWriter(tmp_path / "out") as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_an_artifact_before_the_commit(tmp_path):
    with ArtifactWriter(tmp_path) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
        assert [path.name for path in tmp_path.iterdir()] == [writer.staging.name]
        assert writer.staging.name.startswith(".")


def test_the_manifest_is_moved_last(tmp_path, monkeypatch):
    order = []
    move = Path.replace

    def record(self: Path, target: Path) -> Path:
        if Path(target).parent == tmp_path:
            order.append(Path(target).name)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", record)
    with ArtifactWriter(tmp_path) as writer:
        for name in ("model.fp32.onnx", "model.fp32.onnx.data", "zzz.txt"):
            (writer.staging / name).write_bytes(b"x")
        writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1)})
    assert sorted(order[:-1]) == ["model.fp32.onnx", "model.fp32.onnx.data", "zzz.txt"]
    assert order[-1] == MANIFEST


def test_an_interruption_between_two_files_leaves_no_manifest_old_or_new(tmp_path, monkeypatch):
    write_tiny(tmp_path, b"old")
    move = Path.replace

    def interrupt(self: Path, target: Path) -> Path:
        if Path(target) == tmp_path / "model.fp32.onnx":
            assert not (tmp_path / MANIFEST).exists(), "the old manifest speaks of files that are gone"
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_tiny(tmp_path, b"new", force=True)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_there_is_refused_before_anything_is_written(tmp_path):
    write_tiny(tmp_path, b"old")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(OutputError, match=r"already holds an artifact[\s\S]*--force"):
        write_tiny(tmp_path, b"new")
    assert nano_artifact.snapshot(tmp_path) == before


def test_force_replaces_files_evidence_engines_and_report_but_not_strangers(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "evidence").mkdir()
    for name in (
        "evidence/parity-model.fp32.json",
        "report.html",
        "model.fp16.onnx",
        "model.fp16.onnx.data",
        "model.fp32.tensorrt-rtx.sm89.engine",
    ):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    write_tiny(tmp_path, b"new", force=True)
    assert sorted(nano_artifact.snapshot(tmp_path)) == [MANIFEST, "model.fp32.onnx", "notes.txt"]
    assert not (tmp_path / "evidence").exists()
    verify_file(tmp_path, read_manifest(tmp_path).files[0])
    assert (tmp_path / "model.fp32.onnx").read_bytes() == b"new"


def test_a_forced_export_that_fails_leaves_the_old_artifact_to_the_byte(tmp_path):
    write_tiny(tmp_path, b"old")
    (tmp_path / "report.html").write_bytes(b"report")
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(CrashError):
        write_half(tmp_path, force=True)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("full_at", ["graph", "manifest"])
def test_a_full_disk_leaves_the_old_artifact_to_the_byte(tmp_path, full_at):
    write_tiny(tmp_path, b"old")
    before = nano_artifact.snapshot(tmp_path)
    content, changes = (bytes(9000), {}) if full_at == "graph" else (b"new", {"classes": ("long name" * 1000,)})
    with largest_file(4000), pytest.raises(OutputError) as caught:
        write_tiny(tmp_path, content, force=True, **changes)
    assert "room" in str(caught.value)
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("full_at", ["graph", "manifest"])
def test_a_full_disk_leaves_no_new_directory(tmp_path, full_at):
    content, changes = (bytes(9000), {}) if full_at == "graph" else (b"new", {"classes": ("long name" * 1000,)})
    with largest_file(4000), pytest.raises(OutputError):
        write_tiny(tmp_path / "a" / "b", content, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_moved_into_place_leaves_no_manifest_and_no_graph(tmp_path):
    (tmp_path / "zz.bin").mkdir()

    def write():
        with ArtifactWriter(tmp_path) as writer:
            (writer.staging / "model.fp32.onnx").write_bytes(b"graph")
            (writer.staging / "zz.bin").write_bytes(b"x")
            writer.commit(make_manifest(), {"model.fp32.onnx": ("fp32", 1)})

    with pytest.raises(OutputError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["zz.bin"]


def bad_outputs(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_bytes(b"mine")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "deep below a file": tmp_path / "file" / "a" / "b",
        "a place the kernel refuses": Path("/proc/self/out"),
        "a name that is too long": tmp_path / ("x" * 300),
    }


@pytest.mark.parametrize(
    "kind", ["a file", "below a file", "deep below a file", "a place the kernel refuses", "a name that is too long"]
)
def test_a_place_that_cannot_be_written_is_refused_with_a_fix_and_left_alone(tmp_path, kind):
    path = bad_outputs(tmp_path)[kind]
    with pytest.raises(OutputError) as caught:
        write_tiny(path)
    assert caught.value.where
    assert caught.value.fix
    assert nano_artifact.snapshot(tmp_path) == {"file": b"mine"}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file"]


def test_a_file_as_output_is_refused_even_with_force(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match="the output is a file"):
        check_output(tmp_path / "file", force=True)


def test_checking_an_output_makes_nothing(tmp_path):
    check_output(tmp_path / "a" / "b", force=False)
    assert list(tmp_path.iterdir()) == []


def test_errors_say_what_where_and_fix():
    error = S2MLPDeployError("it broke", where="here", fix="mend it")
    assert str(error) == "it broke\n  where: here\n  fix:   mend it"
    assert str(S2MLPDeployError("it broke")) == "it broke"


def test_files_that_a_killed_process_was_writing_are_removed_by_the_next_writer(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "evidence").mkdir()
    code = (
        "import os, signal, sys; from pathlib import Path; from s2mlp_deploy.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary: os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    for name in ("calibration.npz", "evidence/accuracy.json"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], env=env, check=False)
    assert len(list(tmp_path.rglob(".*.tmp"))) == 2
    others = [tmp_path / f".report.html.{os.getpid()}-abc.tmp", tmp_path / ".someone else's.tmp"]
    for path in others:
        path.write_text("")
    add_tiny(tmp_path, {"model.int8.onnx": b"new"})
    assert sorted(tmp_path.rglob(".*")) == sorted(others)


# The real thing


def test_a_full_disk_during_a_real_export_leaves_nothing(tmp_path):
    from s2mlp_deploy import api

    graph = nano_artifact.captured()
    with largest_file(1_000_000), pytest.raises(OutputError):
        api.export(graph, tmp_path / "a" / "out")
    assert list(tmp_path.iterdir()) == []


# A process captures once, then forks workers that only export; each worker is killed at a random moment.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from s2mlp_deploy import api
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
captured = api.capture(api.load("s2mlpv2_nano"))
forms = ("slice-concat", "pad-slice", "grouped-conv")
start = time.monotonic()
api.export(captured, root / "first")
span = time.monotonic() - start
chance = random.Random(0)
for turn in range(rounds):
    worker = os.fork()
    if worker == 0:
        try:
            for count in range(1000):
                # Every other export replaces one artifact again and again, with other bytes each time.
                name = "same" if count % 2 == turn % 2 else f"new-{turn}-{count}"
                api.export(captured, root / name, shift_form=forms[(turn + count) % 3], force=True)
        finally:
            os._exit(1)
    time.sleep(chance.uniform(0.1, 3) * span)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
"""


@pytest.mark.slow
def test_killed_exports_never_leave_something_that_looks_whole(tmp_path):
    onnx = pytest.importorskip("onnx")
    env = os.environ | {"PYTHONPATH": nano_artifact.PACKAGE_ROOT}
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path), "50"], check=True, env=env, timeout=280)
    whole, torn, checked = 0, 0, set()
    for directory in tmp_path.iterdir():
        torn += any(path.name.startswith(".incomplete-") for path in directory.iterdir())
        if not (directory / MANIFEST).exists():
            continue
        whole += 1
        records = read_manifest(directory).files
        assert records
        for record in records:
            path = verify_file(directory, record)
            if record.sha256 not in checked:
                onnx.checker.check_model(path)
                checked.add(record.sha256)
    assert whole > 10
    assert torn > 10, "hardly any export was killed while it wrote: the test proves nothing"
    assert len(checked) == 3


# Adding to an artifact


def add_tiny(directory: Path, files: dict[str, bytes], **changes) -> Manifest:
    with ArtifactWriter(directory, force=True) as writer:
        for name, content in files.items():
            (writer.staging / name).write_bytes(content)
        facts = {name: (name.split(".")[1], 3) for name in files}
        return writer.add(replace(read_manifest(directory), **changes), facts)


def test_added_files_join_the_others(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "parity.json").write_text("{}")
    before = nano_artifact.snapshot(tmp_path)
    returned = add_tiny(tmp_path, {"model.int8.onnx": b"int8", "model.fp16.onnx": b"fp16"}, notes=("more",))
    manifest = read_manifest(tmp_path)
    assert manifest == returned
    assert [file.precision for file in manifest.files] == ["fp32", "int8", "fp16"]
    assert manifest.notes == ("more",)
    for record in manifest.files:
        verify_file(tmp_path, record)
    after = nano_artifact.snapshot(tmp_path)
    assert set(after) == set(before) | {"model.int8.onnx", "model.fp16.onnx"}
    assert all(after[name] == content for name, content in before.items() if name != MANIFEST)


def test_an_added_file_replaces_the_older_one(tmp_path):
    write_tiny(tmp_path)
    add_tiny(tmp_path, {"model.int8.onnx": b"old"})
    add_tiny(tmp_path, {"model.int8.onnx": b"new"})
    assert [file.path for file in read_manifest(tmp_path).files] == ["model.fp32.onnx", "model.int8.onnx"]
    assert verify_file(tmp_path, read_manifest(tmp_path).file("int8")).read_bytes() == b"new"


def test_an_error_before_adding_leaves_everything(tmp_path):
    write_tiny(tmp_path)
    before = nano_artifact.snapshot(tmp_path)
    with pytest.raises(CrashError):
        write_half(tmp_path, force=True)
    assert nano_artifact.snapshot(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_while_adding_leaves_everything(tmp_path):
    write_tiny(tmp_path)
    before = nano_artifact.snapshot(tmp_path)
    with largest_file(300), pytest.raises(OutputError):
        add_tiny(tmp_path, {"model.int8.onnx": b"new"}, classes=("long name" * 1000,))
    assert nano_artifact.snapshot(tmp_path) == before


def test_at_every_moment_of_adding_the_manifest_is_true(tmp_path, monkeypatch):
    """Ending it after each rename leaves an artifact whose every listed file is the one that is described."""
    replaced = Path.replace
    names = {"model.fp16.onnx", "model.int8.onnx"}
    for moment in range(5):
        directory = tmp_path / str(moment)
        write_tiny(directory)
        add_tiny(directory, dict.fromkeys(names, b"old"))
        done = []

        def ending(path: Path, target: Path, directory=directory, done=done, moment=moment) -> Path:
            # Writing a manifest beside its place is a rename too, and none of the artifact.
            if Path(target).parent == directory:
                if len(done) == moment:
                    raise CrashError
                done.append(target)
            return replaced(path, target)

        with monkeypatch.context() as patch, contextlib.suppress(CrashError):
            patch.setattr(Path, "replace", ending)
            add_tiny(directory, dict.fromkeys(names, b"new"))
        manifest = read_manifest(directory)
        for record in manifest.files:
            verify_file(directory, record)
        assert len(manifest.files) == (3 if moment in (0, 4) else 1)


def test_metadata_speaks_of_its_own_file_only():
    exceptions = tuple(
        PrecisionException(f"layer of {name}", "fp32", "why", f"model.{name}.onnx") for name in ("fp16", "int8")
    )
    record = CalibrationRecord("data", "hash", 8, 0, 0, "entropy", ("model.fp16.onnx", "model.int8.onnx"))
    both = make_manifest(precision_exceptions=exceptions, calibration=record)
    told = {name: json.loads(both.timeless(name)) for name in ("fp32", "fp16", "int8", "int8-trt")}
    assert [item["layer"] for item in told["int8"]["precision_exceptions"]] == ["layer of int8"]
    assert told["fp32"]["precision_exceptions"] == told["int8-trt"]["precision_exceptions"] == []
    assert told["fp32"]["calibration"] is told["int8-trt"]["calibration"] is None
    assert told["int8"]["calibration"]["files"] == ["model.int8.onnx"]
    assert [told[name]["calibration"]["method"] for name in ("fp16", "int8")] == ["maxima", "entropy"]
    # Nothing of it depends on what else was made, nor on the files' own bytes.
    alone = replace(both, precision_exceptions=exceptions[1:], calibration=replace(record, files=("model.int8.onnx",)))
    assert alone.timeless("int8") == both.timeless("int8")
    filed = replace(both, files=(FileRecord("model.int8.onnx", "int8", "0", 1, 1),))
    assert filed.timeless("int8") == both.timeless("int8")
