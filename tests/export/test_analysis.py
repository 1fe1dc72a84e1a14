"""From a module to its shifts with their lines, and two analyses at once."""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.analysis import analyze, check_options
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import MovementRecord, told
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.origin import Origin
from s2mlp_deploy.shift.spec import ShiftSpec

DOWN = ShiftSpec.equal_groups(4, [(1, 0)], axes=(2, 3), channel_axis=1)


class Repeating(nn.Module):
    """The same shift of one tensor twice, then of another one, whose line must not move when the two are merged."""

    def forward(self, x: Tensor) -> Tensor:
        first = shift(x, DOWN)
        second = shift(x, spec=DOWN)
        third = shift(x * first + second, DOWN)
        fourth = torch.roll(third.relu(), 1, 2)
        return third + fourth


def line_of(text: str) -> str:
    lines = Path(__file__).read_text().splitlines()
    return f"{Path(__file__).name}:{next(n for n, line in enumerate(lines, 1) if text in line)}"


def test_each_shift_has_its_own_line_though_equal_ones_are_merged() -> None:
    analysis = analyze(Repeating(), [torch.rand(2, 4, 5, 5)])
    places = [line_of(text) for text in ("first = shift", "second = shift", "third = shift", "fourth = torch.roll")]
    assert [record.origin.line for record in analysis.shifts] == places
    assert [record.origin.idiom for record in analysis.shifts] == ["s2mlp::shift"] * 3 + ["roll"]
    assert [bool(record.origin.sizes) for record in analysis.shifts] == [False, False, False, True]
    _, records = lower_shifts(to_canonical(analysis.captured), FORMS["slice-concat"])
    assert [record.origin.line for record in records] == [places[0], *places[2:]]
    assert records[-1].spec.border == "circular"


def test_analysis_of_a_rewritten_program_keeps_its_origins() -> None:
    once = analyze(Repeating(), [torch.rand(2, 4, 5, 5)])
    again = analyze(once.captured.program, [torch.rand(2, 4, 5, 5)])
    assert again.shifts == once.shifts


@pytest.mark.parametrize(
    ("dynamic", "on_hazard", "says"), [(("time",), "warn", "no axis is called 'time'"), ((), "stop", "'stop'")]
)
def test_options_are_refused(dynamic: tuple[str, ...], on_hazard: str, says: str) -> None:
    with pytest.raises(ExportError, match=says) as raised:
        check_options(dynamic, on_hazard)
    assert raised.value.fix


class Racing(nn.Module):
    """Writes in place, so that the analysis also sets numbers of threads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        x[:, :, 1:] = x[:, :, :-1]
        return x


def exported(module: nn.Module, channels: int) -> str:
    model = to_canonical(analyze(module, [torch.rand(2, channels, 6, 6)]).captured)
    graph = lower_shifts(model, FORMS["slice-concat"])[0]
    return hashlib.sha256(ir.to_proto(graph).SerializeToString(deterministic=True)).hexdigest()


def test_two_exports_at_once_give_the_bytes_of_one_after_the_other() -> None:
    def state() -> tuple[object, ...]:
        return torch.get_num_threads(), logging.getLogger("torch.onnx").level, list(warnings.filters)

    modules = {channels: Racing(channels) for channels in (4, 6)}
    alone = {channels: exported(module, channels) for channels, module in modules.items()}
    before = state()
    together: dict[int, str] = {}
    start = threading.Barrier(len(modules))

    def run(channels: int) -> None:
        start.wait()
        together[channels] = exported(modules[channels], channels)

    threads = [threading.Thread(target=run, args=(channels,)) for channels in modules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert state() == before


def test_a_note_on_other_movements_says_that_they_are_no_shift_of_that_line():
    origin = Origin(line="s2attention.py:15", idiom="slice assignment")
    (note,) = told([MovementRecord(origin, "Slice, Concat")])
    assert note.startswith("besides the shifts, other data")
    assert note.endswith("(slice assignment) is written as Slice, Concat: s2attention.py:15")
