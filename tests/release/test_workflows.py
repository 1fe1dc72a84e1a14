"""Workflows, forms and the citation are what the forge expects, and do what the project's own commands do."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [ROOT / ".github" / "dependabot.yml"],
    "vendor.github-issue-config": [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.github-issue-forms": [
        path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"
    ],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def jobs() -> dict[str, dict]:
    """Every job of every workflow, by file and name."""
    read = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    return {f"{name}.{job}": made for name, workflow in read.items() for job, made in workflow["jobs"].items()}


def commands(job: dict) -> str:
    """What a job runs."""
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def test_actions_are_pinned_by_commit():
    """A tag of an action can be moved; a commit cannot. The remark says which version it is."""
    used = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert len(used) > 8
    assert [line for line in used if not re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d", line)] == []


def test_jobs_have_no_more_rights_than_they_need():
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in jobs().items() if "permissions" in job}
    assert rights == {
        "release.build": {"contents": "read", "id-token": "write", "attestations": "write"},
        "release.publish": {"id-token": "write"},
        "release.announce": {"contents": "write"},
    }
    assert all(job["timeout-minutes"] <= 90 for job in jobs().values())


def test_no_expression_is_pasted_into_a_shell():
    """A branch's name would be a command there: values go through the environment."""
    assert [name for name, job in jobs().items() if "${{" in commands(job)] == []


def test_ci_runs_what_the_project_runs_on_every_python_that_is_named():
    job = jobs()["ci.test"]
    assert commands(job) == ".ci/run"
    named = set(job["strategy"]["matrix"]["python"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = {word.split(":: ")[-1] for word in project["classifiers"] if re.search(r":: 3\.\d+$", word)}
    assert stated <= named
    assert min(named, key=lambda text: int(text.split(".")[1])) == project["requires-python"].removeprefix(">=")


def test_the_gpu_job_is_skipped_where_no_runner_is_named_and_runs_nothing_unmerged():
    job = jobs()["ci.gpu"]
    assert job["if"] == "${{ vars.GPU_RUNNER != '' && github.event_name == 'push' }}"
    assert job["runs-on"] == "${{ vars.GPU_RUNNER }}"


def test_only_a_pushed_tag_publishes_and_only_what_was_built_and_checked():
    build, publish, announce = (jobs()[f"release.{name}"] for name in ("build", "publish", "announce"))
    assert "make release" in commands(build)
    assert publish["needs"] == "build"
    # Started by hand, on a tag even, it does not. YAML reads `on` as true.
    assert publish["if"] == "${{ github.event_name == 'push' }}"
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert release[True]["push"] == {"tags": ["v*"]}
    # The tag comes through the environment; on make's command line its `$(...)` would be run.
    assert build["env"]["TAG"] == "${{ github.ref_type == 'tag' && github.ref_name || '' }}"
    assert "TAG" not in commands(build)
    assert publish["environment"] == "pypi"
    assert announce["needs"] == "publish"
    # Trusted publishing: nothing but the action, and no password.
    assert [set(step) for step in publish["steps"]] == [{"uses", "with"}, {"uses"}]
    assert "secrets." not in "".join(path.read_text() for path in WORKFLOWS)


def test_what_the_workflows_call_is_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {name for job in jobs().values() for name in re.findall(r"\bmake (\w+)", commands(job))}
    assert called
    assert called <= targets
    assert (ROOT / ".ci" / "run").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_forge_s_schema_accepts_them(schema, tmp_path):
    pytest.importorskip("check_jsonschema")
    assert SCHEMAS[schema]

    def check(*paths: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml"]
        return subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)

    found = check(*SCHEMAS[schema])
    assert found.returncode == 0, found.stdout + found.stderr
    if schema == "vendor.github-workflows":
        broken = tmp_path / "broken.yml"
        broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-in:"))
        assert check(broken).returncode == 1


@pytest.mark.slow
def test_an_auditor_of_workflows_finds_nothing():
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("zizmor is not installed")
    found = subprocess.run([zizmor, "--offline", ".github"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
