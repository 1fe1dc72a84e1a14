"""Races on a page: told in the banner and listed with their lines."""

from __future__ import annotations

from pathlib import Path

from report_samples import artifact, manifest, page_of, report

from s2mlp_deploy.artifact import Hazard


def test_a_race_is_told_with_its_line_and_its_effect(tmp_path: Path) -> None:
    race = Hazard("race", "net.py:18", "x[1:] = x[:-1]", 1, 72, {"1": 1.25, "2": 1.5})
    page = page_of(artifact(tmp_path, manifest(hazards=(race,), notes=("the batch is fixed: it says 8",))))
    assert "net.py:18" in page.body
    assert "x[1:] = x[:-1]" in page.body
    assert "1.25 with 1 thread" in page.body
    assert "The batch is fixed: it says 8." in page.body


def test_the_race_stands_in_the_banner_with_what_to_do(tmp_path: Path) -> None:
    race = Hazard("race", "net.py:18", "x[1:] = x[:-1]", 1, 72, {"1": 1.25})
    page = page_of(artifact(tmp_path, manifest(hazards=(race,)), parity_fp32=report()))
    banner = page.of("section")[0]
    assert banner.startswith("Parity holds")
    assert "Eager PyTorch computes something else" in banner
    assert "What to do: " in banner
    assert "s2mlp-deploy parity s2mlpv2_nano" in banner
    assert page.body.count("1.25 with 1 thread") == 1


def test_without_hazards_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert "Hazards" not in page_of(artifact(tmp_path, manifest())).body
