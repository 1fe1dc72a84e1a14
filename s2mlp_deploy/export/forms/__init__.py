"""The forms a shift can take in ONNX. A new form is one file and one line here."""

from __future__ import annotations

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.export.forms.base import ShiftForm
from s2mlp_deploy.export.forms.gather import Gather
from s2mlp_deploy.export.forms.grouped_conv import GroupedConv
from s2mlp_deploy.export.forms.pad_slice import PadSlice
from s2mlp_deploy.export.forms.slice_concat import SliceConcat

FORMS: dict[str, ShiftForm] = {form.name: form for form in (SliceConcat(), PadSlice(), GroupedConv(), Gather())}
AUTO = "auto"
DEFAULT_FORM = SliceConcat.name

__all__ = ["AUTO", "DEFAULT_FORM", "FORMS", "ShiftForm", "choose_form"]


def choose_form(name: str | None = None) -> ShiftForm:
    """Looks a form up; ``auto`` and None are the rule of :data:`DEFAULT_FORM`.

    Raises:
        InputError: No such form; all are listed.
    """
    if name is None or name == AUTO:
        return FORMS[DEFAULT_FORM]
    try:
        return FORMS[name]
    except KeyError:
        raise InputError(f"unknown shift form {name!r}", fix=f"choose one of {', '.join((AUTO, *FORMS))}") from None
