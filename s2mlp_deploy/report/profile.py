"""Profiles as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from s2mlp_deploy.evidence.profile import MATRIX_OPS, UNATTRIBUTED, Profile, Share
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.tables import print_pairs, print_table

SHARES = ("nodes", "ms", "share", "of it GEMM or Conv")
_MODULES = 24
_OPERATORS = 12


def print_profile(console: Console, name: str, profile: Profile) -> None:
    """Prints where the time of a run goes: by module, as deep as a screen shows, and by operator.

    Args:
        console: Where to.
        name: Of the candidate.
        profile: What was measured.
    """
    total = profile.ms or 1.0
    modules = profile.by_module(profile.depth_of(_MODULES))
    unknown = sum(share.ms for share in modules if share.name == UNATTRIBUTED)
    print_table(
        console,
        f"Where the time goes in {name}",
        ("module", *SHARES),
        share_rows(modules, total, _MODULES),
    )
    print_table(
        console,
        None,
        ("operator", *SHARES),
        share_rows(profile.by_operator(), total, _OPERATORS),
    )
    print_pairs(
        console,
        [
            ("not GEMM or Conv", not_matrix(profile)),
            (
                "of no module",
                f"{fmt.percent(unknown / total, 1)}: made or fused by the runtime, without a module's name",
            ),
            (
                "nodes together",
                f"{fmt.milliseconds(profile.ms)} ms of {fmt.milliseconds(profile.run_ms)} ms a run, timed",
            ),
        ],
    )


def not_matrix(profile: Profile) -> str:
    """The share of what is neither GEMM nor convolution, and its largest operators: ``50.3 %: Add, Slice``."""
    others = [share.name for share in profile.by_operator() if share.name not in MATRIX_OPS]
    return f"{fmt.percent(1 - profile.matrix_ms / (profile.ms or 1.0), 1)}: {', '.join(others[:5])}"


def share_rows(shares: Sequence[Share], total: float, rows: int) -> list[tuple[str, ...]]:
    """Shares as rows of a table with the columns :data:`SHARES`; of more than fit the rest is one row.

    Args:
        shares: The most first.
        total: Milliseconds of all nodes.
        rows: How many are shown.
    """
    shown, rest = list(shares[:rows]), shares[rows:]
    if rest:
        shown.append(
            Share(
                f"({fmt.count(len(rest), 'other')})",
                sum(share.nodes for share in rest),
                sum(share.ms for share in rest),
                sum(share.matrix_ms for share in rest),
            )
        )
    return [
        (
            share.name,
            fmt.integer(share.nodes),
            f"{share.ms:.3f}",
            fmt.percent(share.ms / total, 1),
            fmt.percent(share.matrix_ms / share.ms, 0) if share.ms else fmt.MISSING,
        )
        for share in shown
    ]
