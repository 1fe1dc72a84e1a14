"""Which input or output of one side is which of the other."""

from __future__ import annotations

from collections.abc import Sequence

from s2mlp_deploy.errors import InputError


def match_names(wanted: Sequence[str], given: Sequence[str], *, what: str, sides: tuple[str, str]) -> dict[str, str]:
    """For each wanted name the given one it stands for: of the same name, else the next of those left over.

    Args:
        wanted: Names of one side, in order.
        given: Names of the other side, in order.
        what: ``input`` or ``output``, for the message.
        sides: Who wants and who gives, for the message.

    Raises:
        InputError: One side has more than the other; names both.
    """
    if len(wanted) != len(given):
        told = [
            f"{side} has {len(names)} {what}{'' if len(names) == 1 else 's'} ({', '.join(names) or 'none'})"
            for side, names in zip(sides, (wanted, given), strict=True)
        ]
        raise InputError(
            f"the number of {what}s differs: {told[0]}, {told[1]}",
            fix="compare with the source, checkpoint and settings that the file was exported from",
        )
    left_over = iter([name for name in given if name not in wanted])
    return {name: name if name in given else next(left_over) for name in wanted}
