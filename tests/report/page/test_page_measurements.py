"""When, where and with what everything on a page was measured, and of which bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_samples import ENVIRONMENT, FILE, MACHINE, SHA, artifact, build, on_noise, page_of, regions, report, tone


def test_when_and_where_it_was_measured_is_told(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_fp32=report()))
    facts = set(page.of("dd"))
    assert "Some Processor 9000, x86_64" in facts
    assert "8, 16 hardware threads, 2 usable" in facts
    assert "32.0 GB, limited to 4.0 GB" in facts
    assert "avx2, avx512_vnni" in facts
    cells = page.of("td")
    start = cells.index("parity-fp32.json")
    assert cells[start + 1 : start + 4] == [
        "2026-11-27 21:55 UTC",
        "s2mlp-deploy 0.1.0, torch 2.13.0",
        "0.5 0.25 0",
    ]


def test_what_one_command_saved_is_a_row_and_versions_are_those_of_releases(tmp_path: Path) -> None:
    there = replace(ENVIRONMENT, versions={"openvino": "2026.4.1-22982-e213a147257-releases/2026/4"})
    cells = page_of(
        artifact(
            tmp_path, parity_a=report(), parity_b=on_noise(environment=there), parity_c=replace(report(), file="c.onnx")
        )
    ).of("td")
    start = cells.index("parity-a.json, parity-c.json")
    assert cells[start + 4 : start + 7 : 2] == ["parity-b.json", "openvino 2026.4.1"]


def test_each_machine_has_its_own_measurements(tmp_path: Path) -> None:
    later = replace(ENVIRONMENT, time="2026-11-28T10:00:00Z", machine=replace(MACHINE, memory=8 * 10**9))
    page = page_of(
        artifact(tmp_path, parity_a=report(), parity_b=on_noise(environment=later), build_a=replace(build()))
    )
    assert [text for text in page.of("h3") if text.startswith("Machine")] == ["Machine 1", "Machine 2"]
    assert regions(page, "Measured on") == ["Measured on Machine 1", "Measured on Machine 2"]


def test_evidence_that_does_not_say_when_is_shown_all_the_same(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_a=replace(report(), environment=None, weights=None, data_sha256="")))
    assert tone(page) == "good"
    assert "Machine" not in page.of("h3")


def test_a_page_that_was_sent_without_its_files_names_them_with_their_hashes(tmp_path: Path) -> None:
    page = page_of(artifact(tmp_path, parity_a=report(), build_a=build()))
    assert f"{SHA} {FILE}" in page.of("pre")
    assert SHA[:12] in page.of("td")
    assert any(f"sha256 {'ab' * 6}" in cell for cell in page.of("td")), "an engine too"
