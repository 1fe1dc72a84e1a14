"""The forms a shift can take in ONNX. A new form is one file and one line here."""

from __future__ import annotations

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.export.forms.base import GraphBuilder, ShiftForm
from s2mlp_deploy.export.forms.gather import Gather
from s2mlp_deploy.export.forms.grouped_conv import GroupedConv
from s2mlp_deploy.export.forms.pad_slice import PadSlice
from s2mlp_deploy.export.forms.slice_concat import SliceConcat

FORMS: dict[str, ShiftForm] = {form.name: form for form in (SliceConcat(), PadSlice(), GroupedConv(), Gather())}
DEFAULT_FORM = SliceConcat.name

__all__ = ["DEFAULT_FORM", "FORMS", "GraphBuilder", "ShiftForm", "get_form"]


def get_form(name: str) -> ShiftForm:
    """Looks a form up.

    Raises:
        InputError: No such form; all are listed.
    """
    try:
        return FORMS[name]
    except KeyError:
        raise InputError(f"unknown shift form {name!r}", fix=f"choose one of {', '.join(FORMS)}") from None
