"""The reference is generated from the code: it has every command, option, field, name and message."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from s2mlp_deploy import api, errors
from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.store import KINDS

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module", autouse=True)
def ext():
    """The generators, which are no package: modules beside the site's configuration."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "ext"))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if "/docs/ext/" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def section(text: str, name: str) -> str:
    return re.split(r"^## ", text.split(f"\n## {name}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_command_has_all_of_its_options(ext):
    pages = ext("command_pages")
    text = "\n" + pages.commands()
    read = 0
    for name, command in pages.ROOT.commands.items():
        part = section(text, name)
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            read += 1
            shown = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar or parameter.name
            assert f"`{shown}".replace("|", "\\|") in part, f"{name} {shown}"
            assert parameter.help, f"{name} {shown} says nothing"
    assert read > 150


def test_options_show_their_values_defaults_and_whether_they_are_required(ext):
    part = section("\n" + ext("command_pages").commands(), "export")
    rows = {
        row.split(" | ")[0].strip("| "): [cell.strip("| ") for cell in row.split(" | ")] for row in part.splitlines()
    }
    assert rows["`--opset`"][1:3] == ["integer", "`20`"]
    assert rows["`--dynamic`"][2] == "`batch`"
    assert rows["`--output`, `-o`"][3].endswith(" Required.")
    assert rows["`--samples`"] == [
        "`--samples`",
        "integer",
        "`512`",
        "Measure ranges on at most so many samples. X>=1.",
    ]
    assert rows["`--force`"][1:3] == ["", ""]
    assert "\ns2mlp-deploy export SOURCE [OPTIONS]\n" in part
    assert "\ns2mlp-deploy export s2mlpv2_nano --output out\n" in part


@pytest.mark.parametrize("root", [Manifest, *(kind.record for kind in KINDS)])
def test_every_field_of_a_record_has_a_type_and_says_what_it_holds(ext, root):
    pages = ext("record_pages")
    silent = []
    for record in pages._records(root):
        said = ext("wording").attributes_of(record)
        names = [field.name for field in dataclasses.fields(record)]
        part = section("\n" + pages._section(record), pages._title(record))
        assert re.findall(r"^\| `(\w+)`", part, re.MULTILINE) == names
        silent += [f"{record.__name__}.{name}" for name in names if name not in said]
    assert silent == []


def test_types_are_told_in_words_of_json(ext):
    text = "\n" + ext("record_pages").manifest()
    assert "| `shape` | list of integer or string |  | Sizes; dynamic axes by name. |" in section(text, "TensorInfo")
    assert '| `kind` | `"compiler"`, `"race"`, `"smear"` |' in section(text, "Hazard")
    manifest = section(text, "Manifest")
    assert "| `files` | list of [FileRecord](manifest.md#filerecord) | `[]` |" in manifest
    assert "| `calibration` | [CalibrationRecord](manifest.md#calibrationrecord) or null | `null` |" in manifest


def test_evidence_has_every_kind_and_describes_no_record_twice(ext):
    pages = ext("record_pages")
    kinds, text = pages.kinds(), pages.evidence()
    for kind in KINDS:
        assert f"[`{kind.name}`](#{kind.record.__name__.lower()})" in kinds
    both = re.findall(r"^## (.+)$", pages.manifest() + text, re.MULTILINE)
    assert len(both) == len(set(both)) > 30
    assert pages.place_of("s2mlp_deploy.evidence.parity.OutputParity") == ("docs/reference/evidence", "outputparity")
    assert pages.place_of("s2mlp_deploy.artifact.manifest.Manifest") == ("docs/reference/manifest", "manifest")
    assert pages.place_of("s2mlp_deploy.evidence.tune.Trial") == ("docs/reference/evidence", "trial-tune")
    assert pages.place_of("s2mlp_deploy.evidence.parity.Unknown") is None


def test_errors_have_their_messages_fixes_and_status(ext):
    pages = ext("error_pages")
    text = "\n" + pages.errors()
    public = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == [kind.__name__ for kind in public]
    part = section(text, "CheckpointError")
    assert "\nExit status 2.\n" in part
    assert "\nExit status 1.\n" in section(text, "CheckFailedError")
    assert "- `… is …`\n" not in text
    assert "- `the artifact has no … file`\\\n  choose one of …\n" in section(text, "ArtifactError")
    told = pages.messages()
    assert sum(map(len, told.values())) > 350
    assert sum(bool(message.fix) for messages in told.values() for message in messages) > 300


def test_the_python_page_has_every_name_of_the_api(ext):
    marks = ext("generated").MARK.findall((REFERENCE / "python.md").read_text())
    named = [name for _, arguments in marks for name in arguments.split() if "." not in name]
    raised = {name for name in api.__all__ if name.endswith("Error")}
    assert len(named) == len(set(named))
    assert set(named) == set(api.__all__) - raised
    kinds = {kind.__name__ for kind in ext("error_pages").classes()}
    assert raised <= kinds


def test_choices_are_those_of_the_code(ext):
    text: Any = ext("api_pages").choices("OnHazard", "CALIBRATION_SAMPLES", "ProgressCallback")
    assert "| `OnHazard` | `warn`, `error` | What to do about a race: " in text
    assert "| `CALIBRATION_SAMPLES` | `512` | Samples that ranges are measured on. |" in text
    assert "| `ProgressCallback` | `Callable[[str, int, int \\| None], None]` | Called with " in text


def test_every_page_that_is_generated_says_so_with_a_name_that_exists(ext):
    pages = ext("generated")
    used = {mark[0] for page in (ROOT / "docs").rglob("*.md") for mark in pages.MARK.findall(page.read_text())}
    assert used == set(pages.GENERATORS)
    assert "## TensorInfo" in pages.expand("# A page\n\n<!-- generated: manifest -->\n")
