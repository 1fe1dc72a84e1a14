"""The changelog keeps its form, and everything that names the version names one."""

from __future__ import annotations

import datetime
import shutil

import changelog
import pytest
from changelog import ROOT, disagreements, notes, read

GOOD = """# Changelog

## [Unreleased]

### Added

## [0.2.0] - 2027-01-31

### Added

#### Export
- One thing,
  on two lines.

### Fixed
- Another.

## [0.1.0] - 2026-11-28

### Added
- The first.
"""


def test_releases_are_read_with_their_sections_and_entries():
    (unreleased, second, first), wrong = read(GOOD)
    assert wrong == []
    assert (unreleased.name, unreleased.date, unreleased.entries) == ("Unreleased", None, 0)
    assert (second.name, second.date) == ("0.2.0", "2027-01-31")
    assert second.sections == {"Added": ["One thing, on two lines."], "Fixed": ["Another."]}
    assert first.sections == {"Added": ["The first."]}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("## [Unreleased]", "## Unreleased", "no `## [version] - date`"),
        ("## [Unreleased]", "## [0.3.0] - 2027-02-01", "the first heading is not"),
        ("[0.2.0] - 2027-01-31", "[0.2.0]", "0.2.0"),
        ("2027-01-31", "31.1.2027", "31.1.2027"),
        ("2027-01-31", "2027-02-30", "day"),
        ("2027-01-31", "2026-01-31", "stands below"),
        ("[0.2.0]", "[0.0.9]", "stands below"),
        ("[0.2.0]", "[0.2]", "no semantic version|not written as"),
        ("[0.2.0]", "[v0.2.0]", "not written as"),
        ("### Fixed", "### Bugs", "no section 'Bugs'"),
        ("### Fixed", "### Added", "Added twice"),
        ("### Added\n\n#### Export", "### Security", "the sections' order"),
        ("- Another.", "", "nothing in Fixed"),
        ("### Added\n- The first.", "- The first.", "before any section"),
    ],
)
def test_what_breaks_the_form_is_told(old, new, says):
    _, wrong = read(GOOD.replace(old, new, 1))
    assert any(part in line for part in says.split("|") for line in wrong), wrong


def test_the_changelog_is_in_form_and_every_version_agrees():
    assert disagreements() == []


def test_releases_lie_in_the_past_and_say_something():
    releases, _ = read((ROOT / "CHANGELOG.md").read_text())
    # A day ahead: the date is that of whoever releases.
    today = datetime.date.today() + datetime.timedelta(1)
    assert [item.name for item in releases[1:] if datetime.date.fromisoformat(item.date) > today] == []
    assert all(item.entries for item in releases[1:])


@pytest.fixture
def repository(tmp_path):
    """A copy of what names the version."""
    for name in ("CHANGELOG.md", "CITATION.cff", "s2mlp_deploy/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in (ROOT / "tests" / "released").glob("*/artifact"):
        made = tmp_path / folder.relative_to(ROOT)
        made.mkdir(parents=True)
        shutil.copy(folder / "manifest.json", made)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("s2mlp_deploy/__init__.py", '__version__ = "0.1.0"', '__version__ = "0.1.1"', "__version__ is 0.1.1"),
        ("s2mlp_deploy/__init__.py", '__version__ = "0.1.0"', '__version__ = "0.2.0.dev0"', ""),
        ("s2mlp_deploy/__init__.py", '__version__ = "0.1.0"', '__version__ = "0.1.0.dev0"', "__version__ is"),
        ("CITATION.cff", "version: 0.1.0", "version: 0.2.0", "CITATION.cff names 0.2.0"),
        (
            "CHANGELOG.md",
            "## [0.1.0] -",
            "## [0.2.0] - 2027-01-01\n\n### Added\n- X.\n\n## [0.1.0] -",
            "no artifact of 0.2.0",
        ),
    ],
)
def test_versions_that_disagree_are_told(repository, name, old, new, says):
    text = (repository / name).read_text()
    assert old in text
    (repository / name).write_text(text.replace(old, new, 1))
    wrong = disagreements(repository)
    assert any(says in line for line in wrong) if says else wrong == [], wrong


def test_a_tag_is_released_only_with_its_entry_and_nothing_unreleased(repository):
    path = repository / "CHANGELOG.md"
    (_, first, *_), _ = read(path.read_text())
    path.write_text(GOOD.replace("## [0.2.0]", "## [9.9.9]").replace("[0.1.0]", "[0.0.1]"))
    (repository / "s2mlp_deploy" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    assert notes("v9.9.9", repository).startswith("### Added\n\n#### Export\n- One thing,")
    with pytest.raises(SystemExit, match=r"the tag is v1\.0\.0"):
        notes("v1.0.0", repository)
    path.write_text(path.read_text().replace("### Added\n\n##", "### Added\n- Too late.\n\n##", 1))
    with pytest.raises(SystemExit, match="entries under"):
        notes("v9.9.9", repository)
    assert first.name in changelog.version_of((ROOT / "CITATION.cff").read_text(), "version")
