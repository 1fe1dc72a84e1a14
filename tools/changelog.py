"""CHANGELOG.md as a table of releases, and whether everything that names the version agrees.

``python tools/changelog.py`` checks; ``--tag v0.1.0`` checks that this tag may be released, and prints its notes.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "Unreleased"
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
"""Of a release, in the order of keepachangelog.com 1.1.0."""

_RELEASE = re.compile(r"\[(?P<name>[^\]]+)\](?: - (?P<date>\S+))?(?P<yanked> \[YANKED\])?")


@dataclass
class Release:
    """A release of the changelog.

    Attributes:
        name: Its version, or ``Unreleased``.
        date: When it was released; None where it says none.
        text: The lines below its heading.
        sections: The entries of each section, in the order of the page.
    """

    name: str
    date: str | None
    text: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """How many there are in all sections."""
        return sum(len(entries) for entries in self.sections.values())


def read(text: str) -> tuple[list[Release], list[str]]:
    """The releases of a changelog, and what is wrong with its form."""
    releases: list[Release] = []
    wrong: list[str] = []
    section: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            found = _RELEASE.fullmatch(line[3:])
            if found is None:
                wrong.append(f"line {number}: {line!r} is no `## [version] - date`")
            releases.append(Release(found["name"] if found else line[3:], found["date"] if found else None))
            section = None
            continue
        if not releases:
            continue
        releases[-1].text.append(line)
        if line.startswith("### "):
            name, known = line[4:], releases[-1].sections
            if name not in SECTIONS:
                wrong.append(f"line {number}: there is no section {name!r}, but {', '.join(SECTIONS)}")
            if name in known:
                wrong.append(f"line {number}: {releases[-1].name} has {name} twice")
            section = known.setdefault(name, [])
        elif line.startswith("- "):
            if section is None:
                wrong.append(f"line {number}: an entry before any section of {releases[-1].name}")
            else:
                section.append(line[2:])
        elif line.startswith("  ") and section:
            section[-1] += f" {line.strip()}"
    return releases, wrong + _order(releases)


def _order(releases: list[Release]) -> list[str]:
    """What is wrong with names, dates and order."""
    wrong = [] if releases and releases[0].name == UNRELEASED else [f"the first heading is not [{UNRELEASED}]"]
    if releases and releases[0].date:
        wrong.append(f"{UNRELEASED} has a date")
    newer: tuple[Version, date] | None = None
    for release in releases[1:]:
        try:
            version, day = Version(release.name), date.fromisoformat(release.date or "")
        except (InvalidVersion, ValueError) as error:
            wrong.append(f"{release.name}: {error}")
            continue
        if str(version) != release.name or len(version.release) != 3:
            wrong.append(f"{release.name} is not written as a semantic version")
        if newer is not None and not (newer[0] > version and newer[1] >= day):
            wrong.append(f"{release.name} of {day} stands below {newer[0]} of {newer[1]}")
        newer = version, day
    for release in releases:
        order = [SECTIONS.index(name) for name in release.sections if name in SECTIONS]
        if order != sorted(order):
            wrong.append(f"{release.name}: the sections' order is {', '.join(SECTIONS)}")
        empty = [name for name, entries in release.sections.items() if not entries]
        if empty and release.name != UNRELEASED:
            wrong.append(f"{release.name}: nothing in {', '.join(empty)}")
    return wrong


def version_of(text: str, name: str) -> str:
    """What a line ``name = "0.1.0"`` or ``name: 0.1.0`` of a file states."""
    found = re.search(rf'^{name}\s*[:=]\s*"?([^"\s]+)"?\s*$', text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"no line with {name}")
    return found[1]


def disagreements(root: Path = ROOT) -> list[str]:
    """Where the changelog is not in form, or something names another version than it does.

    The version stands in ``s2mlp_deploy/__init__.py`` alone. It is that of the newest release, or, after it, a
    ``.dev`` of a later one.
    """
    releases, wrong = read((root / "CHANGELOG.md").read_text("utf-8"))
    if len(releases) < 2:
        return [*wrong, "there is no release"]
    newest = releases[1]
    own = Version(version_of((root / "s2mlp_deploy" / "__init__.py").read_text("utf-8"), "__version__"))
    if own != Version(newest.name) and not (own.is_devrelease and own > Version(newest.name)):
        wrong.append(f"__version__ is {own}; CHANGELOG.md's newest release is {newest.name}")
    citation = (root / "CITATION.cff").read_text("utf-8")
    cited = (version_of(citation, "version"), version_of(citation, "date-released"))
    if cited != (newest.name, newest.date):
        wrong.append(f"CITATION.cff names {' of '.join(cited)}; CHANGELOG.md {newest.name} of {newest.date}")
    if not (root / "tests" / "released" / newest.name / "artifact" / "manifest.json").is_file():
        wrong.append(f"there is no artifact of {newest.name}: python tests/released/make_artifact.py")
    return wrong


def notes(tag: str, root: Path = ROOT) -> str:
    """The text of a release that a tag names.

    Raises:
        SystemExit: It may not be released as it is, with the reason.
    """
    releases, _ = read((root / "CHANGELOG.md").read_text("utf-8"))
    own = version_of((root / "s2mlp_deploy" / "__init__.py").read_text("utf-8"), "__version__")
    if tag != f"v{own}" or releases[1].name != own:
        raise SystemExit(f"the tag is {tag}, the version {own}, the newest release of CHANGELOG.md {releases[1].name}")
    if releases[0].entries:
        raise SystemExit(f"CHANGELOG.md has entries under [{UNRELEASED}]: move them to [{own}]")
    return "\n".join(releases[1].text).strip()


def main() -> None:
    """Checks, and prints the notes of a tag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", help="the tag of the release: v and its version")
    tag = parser.parse_args().tag
    if wrong := disagreements():
        raise SystemExit("\n".join(wrong))
    sys.stdout.write(f"{notes(tag)}\n" if tag else "")


if __name__ == "__main__":
    main()
