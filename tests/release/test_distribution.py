"""The wheel and the source archive: what is in them, that both agree, and that a bare venv can use the wheel."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from s2mlp_deploy import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RELEASED = max((ROOT / "tests" / "released").glob("*/artifact"), key=lambda path: Version(path.parent.name))
DEMO = {f"s2mlp_deploy/demo/weights/s2mlpv2_nano_digits.{kind}" for kind in ("safetensors", "json")}


def build(source: Path, output: Path, kind: str) -> Path:
    """Builds a wheel or an sdist with the tools of this environment; returns it."""
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = output.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def members(wheel: Path) -> dict[str, str]:
    """The hash of every file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(members(wheel))
    package = {name for name in names if ".dist-info/" not in name}
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "s2mlp_deploy"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert package == set(tracked)
    assert "s2mlp_deploy/py.typed" in package
    # The demo's weights and no other checkpoint, data set, graph or engine.
    heavy = {name for name in package if not name.endswith((".py", ".typed", ".html", ".j2", ".css", ".js"))}
    assert heavy == DEMO
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_its_metadata_is_the_projects(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = text.splitlines()
    assert f"Version: {__version__}" in lines
    assert "License-Expression: Apache-2.0" in lines
    assert "Description-Content-Type: text/markdown" in lines
    needed = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert len(needed) == len(project["dependencies"])
    assert {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra")} == set(
        project["optional-dependencies"]
    )
    assert "Requires-Dist: torch<2.15,>=2.13; extra == 'export'" in lines


def test_the_source_archive_holds_what_builds_tests_and_explains(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "constraints.txt", "Makefile", "CHANGELOG.md", "CITATION.cff", "SECURITY.md"):
        assert needed in names
    for folder in ("s2mlp_deploy/", "tests/", "docs/", "examples/", "tools/", "tests/released/"):
        assert any(name.startswith(folder) for name in names), folder
    assert not any(part in name for name in names for part in ("__pycache__", ".venv/", ".egg-info", ".git/"))
    assert not any(name.startswith(("build/", "dist/")) for name in names)
    # What one's own folders of results are called may be the name of a reader, too.
    assert any(name.startswith("tests/fuzz/corpus/artifact/build/") for name in names)


def test_the_source_archive_builds_the_same_wheel(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = build(source, tmp_path / "wheel", "wheel")
    assert again.name == wheel.name
    assert members(again) == members(wheel)


def test_the_index_would_take_both(wheel, sdist):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_a_bare_venv_installs_the_wheel_and_uses_it(wheel, tmp_path):
    """The wheel itself, not a checkout: tests/test_light_install.py uses an editable one."""
    venv.create(tmp_path / "v", with_pip=True)
    home = tmp_path / "v" / "bin"

    def run(*arguments: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            list(map(str, arguments)), env={"PATH": str(home), "HOME": str(tmp_path)}, cwd=tmp_path,
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done

    pip = (sys.executable, "-m", "pip", "--python", str(home / "python"), "install", "--quiet")
    install = [*pip, "-c", str(ROOT / "constraints.txt"), f"{wheel}[cpu]"]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = home / "s2mlp-deploy"
    assert run(command, "--version").stdout == f"s2mlp-deploy {__version__}\n"
    assert "s2mlpv2_small_7" in run(command, "models").stdout
    predicted = json.loads(run(command, "predict", RELEASED, RELEASED.parent / "image.png", "--json").stdout)
    expected = json.loads((RELEASED.parent / "expected.json").read_text())["prediction"]
    assert max(expected, key=expected.get) in json.dumps(predicted)
    # What it lacks it names, with the extra that brings it.
    refused = run(command, "export", "s2mlpv2_nano", "--output", "out", fails=True)
    assert "s2mlp-deploy[export]" in refused.stderr
    assert not (tmp_path / "out").exists()
    weights = "from s2mlp_deploy.demo.digits import weights_path; print(weights_path().stat().st_size > 10**6)"
    assert run(home / "python", "-c", weights).stdout == "True\n"
