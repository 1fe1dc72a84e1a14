"""Scores of several runs in one report, and whether they are of the files that are there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import FILE, INT8, accuracy, quantized_manifest

from s2mlp_deploy.artifact import FileRecord, Manifest
from s2mlp_deploy.evidence.accuracy import AccuracyReport, AccuracyRow

FP16 = "model.fp16.onnx"


def of_files(*rows: tuple[str, str, str]) -> AccuracyReport:
    """A report with a row for each (file, precision, sha256)."""
    return AccuracyReport(
        "top-1 accuracy",
        "photos",
        10,
        tuple(AccuracyRow(file, precision, 1, 80.0, 99.0, 40.0, "as in the file") for file, precision, _ in rows),
        sqnr={precision: {"fc1": 30.0} for _, precision, _ in rows},
        sha256={file: digest for file, _, digest in rows},
        data_sha256="d",
    )


def manifest(*files: tuple[str, str, str]) -> Manifest:
    return replace(quantized_manifest(), files=tuple(FileRecord(f, p, digest, 1, 1) for f, p, digest in files))


NEW = (FILE, "fp32", "a"), (FP16, "fp16", "b")
OLD = (FILE, "fp32", "a"), (INT8, "int8", "c")


def test_scores_of_other_files_are_kept_where_they_were_scored_on_the_same() -> None:
    merged = of_files(*NEW).with_earlier(of_files(*OLD), manifest(*NEW, OLD[1]))
    assert [row.file for row in merged.rows] == [FILE, FP16, INT8]
    assert merged.sha256 == {FILE: "a", FP16: "b", INT8: "c"}
    assert set(merged.sqnr) == {"fp32", "fp16", "int8"}


def test_labels_are_equal_where_scores_compare_and_readable() -> None:
    whole = replace(of_files(*NEW), data="64 images of photos")
    assert whole.label.startswith("photos-")
    assert replace(whole, rows=(replace(whole.rows[0], score=1.0),)).label == whole.label
    for changes in ({"metric": "mAP"}, {"output": "boxes"}, {"images": 11}, {"data_sha256": "e"}, {"sha256": {}}):
        assert replace(whole, **changes).label != whole.label


def test_of_older_scores_what_nothing_newer_tells_of_is_current() -> None:
    older = of_files(*NEW, OLD[1])
    left = older.current(manifest(*NEW, OLD[1]), but={FP16})
    assert left is not None
    assert [row.file for row in left.rows] == [FILE, INT8]
    assert set(left.sqnr) == {"int8"}
    assert older.current(manifest(*NEW), but={FP16}) is None, "int8 is gone"
    assert older.current(manifest((FILE, "fp32", "x"), NEW[1])) is None, "float32 is another"


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "mAP"},
        {"output": "boxes"},
        {"data": "other"},
        {"images": 11},
        {"data_sha256": "e"},
        {"rows": (replace(of_files(*OLD).rows[0], score=79.0), of_files(*OLD).rows[1])},
        {"sha256": {FILE: "another graph", INT8: "c"}},
    ],
)
def test_scores_on_something_else_are_dropped(changes: dict[str, object]) -> None:
    earlier = replace(of_files(*OLD), **changes)
    assert of_files(*NEW).with_earlier(earlier, manifest(*NEW, OLD[1])) == of_files(*NEW)


@pytest.mark.parametrize("present", [(), ((INT8, "int8", "replaced since"),)])
def test_scores_of_files_that_are_gone_or_replaced_are_dropped(present: tuple[tuple[str, str, str], ...]) -> None:
    assert of_files(*NEW).with_earlier(of_files(*OLD), manifest(*NEW, *present)) == of_files(*NEW)


def test_a_drop_is_from_float32_and_unknown_where_a_score_is() -> None:
    report = accuracy()
    assert [report.drop(row) for row in report.rows] == [None, pytest.approx(0.1)]
    assert report.drop(replace(report.rows[1], score=None)) is None


def test_a_score_that_does_not_say_of_which_bytes_is_outdated() -> None:
    report = accuracy()
    assert report.outdated(quantized_manifest()) == frozenset()
    assert replace(report, sha256={}).outdated(quantized_manifest()) == {FILE, INT8}


@pytest.mark.parametrize(
    ("score", "collapsed"), [(80.0, False), (60.1, False), (60.0, True), (3.0, True), (None, False)]
)
def test_a_file_that_loses_tens_of_points_has_collapsed(score: float | None, collapsed: bool) -> None:
    report = of_files(*NEW)
    report = replace(report, rows=(report.rows[0], replace(report.rows[1], score=score)))
    assert bool(report.collapsed()) == collapsed
