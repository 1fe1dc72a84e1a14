"""Deprecations are told once, last as long as the rule says, and are gone when they must be."""

from __future__ import annotations

import json
import warnings

import changelog
import pytest
from packaging.version import Version
from tiny_artifact import write_tiny

from s2mlp_deploy import __version__, api, deprecation
from s2mlp_deploy.artifact import MANIFEST, read_manifest
from s2mlp_deploy.cli.console import set_up_logging
from s2mlp_deploy.deprecation import DEPRECATIONS, MANIFEST_1, DeprecatedUseWarning, Deprecation, warn_deprecated

OLD = Deprecation("--old", "0.2.0", "0.4.0", "use --new")


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """Nothing was said yet in this process."""
    monkeypatch.setattr(deprecation, "_told", set())


def uses_something_old():
    warn_deprecated(OLD)


@pytest.fixture
def old_artifact(tmp_path):
    """An artifact whose manifest is of schema version 1."""
    write_tiny(tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    return tmp_path / "out"


def test_it_is_told_once_at_the_users_line_with_the_release_that_removes_it():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        uses_something_old()
        uses_something_old()
    (warning,) = told
    assert warning.category is DeprecatedUseWarning
    assert str(warning.message) == "--old: deprecated since 0.2.0 and gone in 0.4.0; use --new"
    assert warning.filename == __file__


def test_python_shows_it_to_users_without_being_asked():
    assert issubclass(DeprecatedUseWarning, FutureWarning)


def test_the_command_line_tells_it_in_one_line(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        set_up_logging()
        uses_something_old()
    assert capsys.readouterr().err == "warning: --old: deprecated since 0.2.0 and gone in 0.4.0; use --new\n"


@pytest.mark.parametrize("read", [read_manifest, api.report], ids=["at once", "deep in the package"])
def test_manifests_of_schema_version_1_are_told_at_the_users_line(old_artifact, read):
    with pytest.warns(DeprecatedUseWarning, match=r"schema version 1.*gone in 0\.3\.0; export") as told:
        read(old_artifact)
    assert [warning.filename for warning in told if warning.category is DeprecatedUseWarning] == [__file__]


def test_manifests_of_this_version_are_not(tmp_path):
    write_tiny(tmp_path / "out")
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["schema_version"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("item", DEPRECATIONS, ids=lambda item: item.name)
def test_the_rule_holds_for_every_deprecation(item):
    since, removal, here = Version(item.since), Version(item.removal), Version(__version__)
    assert here < removal, f"{item.name} must be gone: remove it, its line, and name it under Removed"
    # Two minor releases before 1.0, the next major release from then on.
    least = (0, since.minor + 2, 0) if since.major == 0 and removal.major == 0 else (since.major + 1, 0, 0)
    assert removal.release >= least
    releases, _ = changelog.read((changelog.ROOT / "CHANGELOG.md").read_text())
    told = [entry for release in releases for entry in release.sections.get("Deprecated", ())]
    assert any(item.name in entry and item.removal in entry for entry in told)


def test_the_table_names_each_once():
    assert MANIFEST_1 in DEPRECATIONS
    assert len({item.name for item in DEPRECATIONS}) == len(DEPRECATIONS)
