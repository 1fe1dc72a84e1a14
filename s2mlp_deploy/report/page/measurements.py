"""When, where and with what everything on a page was measured."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.evidence.machine import Machine
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.environment import machine_in_words, time_in_words, versions_in_words
from s2mlp_deploy.report.page.cells import Cell, Table


@dataclass(frozen=True)
class MachineView:
    """A machine and what was measured on it.

    Attributes:
        name: ``Machine``, or with a number where there are several.
        facts: Label and value.
        measured: A row for each document.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    measured: Table


def view_machines(evidence: Evidence) -> tuple[MachineView, ...]:
    """The machines of an artifact's evidence in the order of their first use, and what was measured there."""
    # What is read off a file has no environment.
    environments = [(item, getattr(item.record, "environment", None)) for item in evidence.saved]
    found = [(item, environment) for item, environment in environments if environment is not None]
    found.sort(key=lambda pair: pair[1].time)
    by_machine: list[tuple[Machine, dict[tuple[Cell, ...], list[str]]]] = []
    for item, environment in found:
        rows = next((rows for machine, rows in by_machine if machine == environment.machine), None)
        if rows is None:
            rows = {}
            by_machine.append((environment.machine, rows))
        load = " ".join(f"{value:g}" for value in environment.load)
        how = (Cell(time_in_words(environment)), Cell(versions_in_words(environment)), Cell(load or fmt.MISSING))
        rows.setdefault(how, []).append(item.name)  # One command saves several.
    columns = ("Evidence", "Measured", "Runtimes", "Load average")
    return tuple(
        MachineView(
            f"Machine {number}" if len(by_machine) > 1 else "Machine",
            machine_in_words(machine),
            Table(columns, tuple((Cell(", ".join(names)), *how) for how, names in rows.items())),
        )
        for number, (machine, rows) in enumerate(by_machine, 1)
    )
