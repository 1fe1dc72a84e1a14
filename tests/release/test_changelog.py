"""The changelog keeps its form, and everything that names the version names one."""

from __future__ import annotations

import datetime

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
    """What names the version in a repository whose newest release is 0.2.0."""
    texts = {
        "CHANGELOG.md": GOOD,
        "CITATION.cff": "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2027-01-31\n",
        "s2mlp_deploy/__init__.py": '__version__ = "0.2.0"\n',
        "tests/released/0.2.0/artifact/manifest.json": "{}",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert disagreements(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("s2mlp_deploy/__init__.py", "0.2.0", "0.2.1", "__version__ is 0.2.1"),
        ("s2mlp_deploy/__init__.py", "0.2.0", "0.3.0.dev0", ""),
        ("s2mlp_deploy/__init__.py", "0.2.0", "0.2.0.dev0", "__version__ is"),
        ("CITATION.cff", "\nversion: 0.2.0", "\nversion: 0.3.0", "CITATION.cff names 0.3.0"),
        ("CITATION.cff", "2027-01-31", "2027-01-30", "of 2027-01-30"),
        (
            "CHANGELOG.md",
            "## [0.2.0]",
            "## [0.3.0] - 2027-02-01\n\n### Added\n- X.\n\n## [0.2.0]",
            "no artifact of 0.3.0",
        ),
        ("CHANGELOG.md", "### Fixed", "### Bugs", "no section 'Bugs'"),
    ],
)
def test_versions_that_disagree_are_told(repository, name, old, new, says):
    text = (repository / name).read_text()
    assert old in text
    (repository / name).write_text(text.replace(old, new, 1))
    wrong = disagreements(repository)
    assert any(says in line for line in wrong) if says else wrong == [], wrong


def test_a_tag_is_released_only_with_its_entry_and_nothing_unreleased(repository):
    assert notes("v0.2.0", repository).startswith("### Added\n\n#### Export\n- One thing,")
    with pytest.raises(SystemExit, match=r"the tag is v0\.1\.0"):
        notes("v0.1.0", repository)
    path = repository / "CHANGELOG.md"
    path.write_text(GOOD.replace("### Added\n\n##", "### Added\n- Too late.\n\n##", 1))
    with pytest.raises(SystemExit, match="entries under"):
        notes("v0.2.0", repository)
