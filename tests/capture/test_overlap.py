"""How many elements two views share, against counting them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2mlp_deploy.capture import overlap as module
from s2mlp_deploy.capture.overlap import View, overlap


def counted(a: View, b: View) -> int:
    """By listing the positions of each in plain Python."""

    def positions(view: View) -> set[int]:
        found = {view.start}
        for size, stride in zip(view.shape, view.stride, strict=True):
            found = {position + index * stride for position in found for index in range(size)}
        return found if 0 not in view.shape else set()

    return 0 if a == b else len(positions(a) & positions(b))


@st.composite
def views(draw: st.DrawFn) -> View:
    rank = draw(st.integers(0, 3))
    return View(
        tuple(draw(st.lists(st.integers(0, 4), min_size=rank, max_size=rank))),
        tuple(draw(st.lists(st.integers(0, 9), min_size=rank, max_size=rank))),
        draw(st.integers(0, 12)),
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(views(), views())
def test_any_two_views(a: View, b: View) -> None:
    assert overlap(a, b) == counted(a, b)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_two_windows_of_one_tensor(data: st.DataObject) -> None:
    whole = torch.empty(tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))))
    if data.draw(st.booleans()):
        whole = whole.permute(tuple(data.draw(st.permutations(range(whole.dim())))))

    def window() -> View:
        part = whole
        for axis, size in enumerate(whole.shape):
            start = data.draw(st.integers(0, size - 1))
            part = part.narrow(axis, start, data.draw(st.integers(1, size - start)))
        return View.of(part)

    a, b = window(), window()
    assert overlap(a, b) == counted(a, b)


SHIFTS = {
    "rows": (lambda x: x[:, 1:], lambda x: x[:, :-1], 3 * 6 * 5 * 4),
    "columns": (lambda x: x[:, :, 1:], lambda x: x[:, :, :-1], 3 * 8 * 3 * 4),
    "apart": (lambda x: x[:, 4:], lambda x: x[:, :4], 0),
    "other channels": (lambda x: x[..., :2], lambda x: x[..., 2:], 0),
    "itself": (lambda x: x[:, 1:], lambda x: x[:, 1:], 0),
    "a row for all": (lambda x: x[0], lambda x: x[:1, :1].expand(1, 8, 5, 4), 5 * 4),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_what_shifts_write(name: str) -> None:
    target, source, shared = SHIFTS[name]
    x = torch.empty(3, 8, 5, 4)
    assert overlap(View.of(target(x)), View.of(source(x))) == shared


def test_a_large_shift_is_counted_without_listing_its_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "_marked")
    x = torch.empty(2, 640, 640, 64, device="meta")
    assert overlap(View.of(x[:, 1:]), View.of(x[:, :-1])) == 2 * 638 * 640 * 64
