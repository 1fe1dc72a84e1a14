"""Types reach who uses the package: another project under mypy --strict and pyright's strict rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s2mlp_deploy import api

pytestmark = pytest.mark.slow

CONSUMER = Path(__file__).parent / "consumer" / "service.py"
PACKAGE_ROOT = Path(api.__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, far from this repository's settings."""
    shutil.copy(CONSUMER, tmp_path)
    names = "\n".join(f"reveal_type(api.{name})" for name in api.__all__)
    (tmp_path / "names.py").write_text(f"from typing import reveal_type\nfrom s2mlp_deploy import api\n{names}\n")
    return tmp_path


def pyright(project: Path, *arguments: str) -> dict:
    """What pyright says, with the Python that runs this test."""
    pytest.importorskip("basedpyright")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", *arguments],
        cwd=project,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def mypy(project: Path) -> str:
    """What mypy --strict says of the project's file."""
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", sys.executable, "service.py"],
        cwd=project,
        env=os.environ | {"MYPYPATH": str(PACKAGE_ROOT)},
        capture_output=True,
        text=True,
    )
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("service.py"))


def test_mypy_strict_takes_a_project_that_uses_the_api(project):
    assert mypy(project) == ""
    # A mistake of the project's is found: the types are there.
    (project / "service.py").write_text(CONSUMER.read_text().replace("top=1)", 'top="one")'))
    assert 'incompatible type "str"' in mypy(project)


def test_pyright_strict_takes_a_project_that_uses_the_api(project):
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["service.py"]}')
    found = pyright(project)
    assert [(item["range"]["start"]["line"] + 1, item["message"]) for item in found["generalDiagnostics"]] == []
    assert found["summary"]["filesAnalyzed"] == 1


def test_no_name_of_the_api_is_unknown(project):
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["names.py"]}')
    found = pyright(project)
    revealed = [item["message"] for item in found["generalDiagnostics"] if item["severity"] == "information"]
    assert len(revealed) == len(api.__all__)
    assert [message for message in revealed if "Unknown" in message] == []


def test_every_type_that_the_api_reaches_is_complete(project):
    found = pyright(project, "--verifytypes", "s2mlp_deploy.api", "--ignoreexternal")["typeCompleteness"]
    unknown = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    assert unknown == []
    assert found["completenessScore"] == 1
    assert found["pyTypedPath"].endswith("py.typed")
