"""The forms a shift can take in ONNX. A new form is one file and one line here."""

from __future__ import annotations

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.export.forms.base import ShiftForm
from s2mlp_deploy.export.forms.choose import choose
from s2mlp_deploy.export.forms.gather import Gather
from s2mlp_deploy.export.forms.grouped_conv import GroupedConv
from s2mlp_deploy.export.forms.pad_slice import PadSlice
from s2mlp_deploy.export.forms.row_gather import RowGather
from s2mlp_deploy.export.forms.slice_concat import SliceConcat

FORMS: dict[str, ShiftForm] = {
    form.name: form for form in (SliceConcat(), PadSlice(), GroupedConv(), Gather(), RowGather())
}
AUTO = "auto"

__all__ = ["AUTO", "FORMS", "ShiftForm", "choose", "find_form"]


def find_form(name: str) -> ShiftForm | None:
    """Looks a form up; None for ``auto``, which is a choice for each shift (:func:`choose`).

    Raises:
        InputError: No such form; all are listed.
    """
    if name == AUTO:
        return None
    try:
        return FORMS[name]
    except KeyError:
        raise InputError(f"unknown shift form {name!r}", fix=f"choose one of {', '.join((AUTO, *FORMS))}") from None
