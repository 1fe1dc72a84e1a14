"""What s2mlp-deploy brings along: its bill of materials (CycloneDX) and its licences, checked against those allowed.

``python tools/dependencies.py --output DIR`` with the Python of an environment in which the package, its extras and the
extra ``release`` are installed. It writes ``sbom.cdx.json`` and ``licences.md``, and exits with 1 where a licence is
neither allowed nor excepted by ``tools/licences.toml``. A package that is not installed here is not looked at, and
named in ``licences.md``.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OWN = "s2mlp-deploy"
UNKNOWN = "UNKNOWN"


def closure(extras: Iterable[str]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The installed packages that the core and some extras need, and those that are not installed.

    Returns:
        Both by name, with the packages that ask for them.
    """
    found: dict[str, set[str]] = {}
    missing: dict[str, set[str]] = {}
    open_, done = [(OWN, frozenset(extras))], set()
    while open_:
        name, wanted = open_.pop()
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        for text in requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                continue
            package = canonicalize_name(requirement.name)
            try:
                requires(package)
            except PackageNotFoundError:
                missing.setdefault(package, set()).add(name)
                continue
            found.setdefault(package, set()).add(name)
            open_.append((package, frozenset(requirement.extras)))
    found.pop(OWN, None)
    return found, missing


def identifier(row: Mapping[str, str], spelled: Mapping[str, str]) -> str:
    """The SPDX expression of a package, by what its metadata says; what it says where that is no identifier.

    Args:
        row: Of ``pip-licenses --from=all``: the expression, else the field, else the classifiers.
        spelled: Identifiers by what packages say in place of them.
    """
    told = [row.get(key, UNKNOWN) for key in ("License-Expression", "License-Metadata")]
    told += row.get("License-Classifier", UNKNOWN).split("; ")
    # A whole licence's text says no name.
    short = [text for text in told if text != UNKNOWN and "\n" not in text]
    for text in short:
        try:
            return str(get_spdx_licensing().parse(spelled.get(text, text), validate=True))
        except ExpressionError:
            continue
    return short[0] if short else UNKNOWN


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone."""
    licensing = get_spdx_licensing()
    try:
        parsed = licensing.parse(expression, validate=True)
    except ExpressionError:
        return False
    known = {str(licensing.parse(name)) for name in allowed}

    def met(node: Any) -> bool:
        if type(node).__name__ in ("AND", "OR"):
            return (all if type(node).__name__ == "AND" else any)(met(part) for part in node.args)
        return str(node) in known

    return met(parsed)


def violations(licences: Mapping[str, str], rules: Mapping[str, Any]) -> list[str]:
    """Packages whose licence is neither allowed nor excepted."""
    return [
        f"{name}: {licence}"
        for name, licence in licences.items()
        if not is_allowed(licence, rules["allowed"]) and not exception_of(name, rules)
    ]


def exception_of(name: str, rules: Mapping[str, Any]) -> str:
    """Why a package of another licence may be there; empty where none says so."""
    return next((why for pattern, why in rules["exceptions"].items() if fnmatch.fnmatch(name, pattern)), "")


def bill_of_materials(packages: Iterable[str]) -> dict[str, Any]:
    """The bill of materials of this environment, of some packages alone."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    made = subprocess.run([*command, sys.executable], check=True, capture_output=True, text=True, cwd=ROOT)
    document: dict[str, Any] = json.loads(made.stdout)
    wanted = set(packages)
    own = [item for item in document["components"] if canonicalize_name(item["name"]) == OWN]
    kept = [item for item in document["components"] if canonicalize_name(item["name"]) in wanted]
    names = {item["bom-ref"] for item in (*kept, *own)}
    document["components"] = kept
    # Installed from a checkout, it would be named with its place on this machine.
    document["metadata"]["component"] = {key: own[0][key] for key in ("bom-ref", "name", "version", "type", "licenses")}
    document["dependencies"] = [
        item | {"dependsOn": sorted(set(item.get("dependsOn", ())) & names)}
        for item in document["dependencies"]
        if item["ref"] in names
    ]
    return document


def main() -> None:
    """Writes both files and says what is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    output: Path = parser.parse_args().output
    rules = tomllib.loads((ROOT / "tools" / "licences.toml").read_text("utf-8"))
    found, missing = closure(rules["extras"])
    command = [sys.executable, "-m", "piplicenses", "--from=all", "--format=json", "--with-system"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows: dict[str, Any] = {canonicalize_name(row["Name"]): row for row in told}
    licences = {name: identifier(rows[name], rules["spelled"]) for name in sorted(found)}
    output.mkdir(parents=True, exist_ok=True)
    (output / "sbom.cdx.json").write_text(json.dumps(bill_of_materials(found), indent=1) + "\n", "utf-8")
    lines = [
        "# Licences of dependencies\n",
        f"Of {OWN} with the extras {', '.join(rules['extras'])}, as `tools/dependencies.py` read them.\n",
        "| package | version | licence | needed by | remark |\n|---|---|---|---|---|",
    ]
    for name, licence in licences.items():
        by = ", ".join(sorted(found[name]))
        remark = "" if is_allowed(licence, rules["allowed"]) else exception_of(name, rules)
        lines.append(f"| {name} | {rows[name]['Version']} | {licence} | {by} | {remark} |")
    if missing:
        lines.append("\nNot installed here, and not looked at: " + ", ".join(sorted(missing)) + ".")
    (output / "licences.md").write_text("\n".join(lines) + "\n", "utf-8")
    if wrong := violations(licences, rules):
        raise SystemExit(
            "these licences are neither allowed nor excepted by tools/licences.toml:\n  " + "\n  ".join(wrong)
        )
    print(f"{len(licences)} packages, {len(missing)} not installed here: {output}/sbom.cdx.json, {output}/licences.md")


if __name__ == "__main__":
    main()
