"""Builds as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from s2mlp_deploy.evidence.build import BuildRecord, Contents, Profile
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.figures import precision_in_words
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text

_KINDS = 10


def print_build(console: Console, record: BuildRecord) -> None:
    """Prints what a build made.

    Args:
        console: Where to.
        record: What it was made from and for.
    """
    print_words(console, visible_text(console, f"{'Found' if record.cached else 'Built'} {record.engine}", "bold"))
    if record.cached:
        console.print("An equal build made it before; --force builds again.")
    print_record(console, record)


def print_record(console: Console, record: BuildRecord) -> None:
    """Prints what an engine was made from and for."""
    dtypes = ", ".join(f"{fmt.integer(times)} {name}" for name, times in record.layer_dtypes.items())
    flags = ", ".join(
        name.replace("_", "-") if value is True else f"{name.replace('_', '-')} {value}"
        for name, value in record.flags.items()
        if value not in (None, False, "none") and (name, value) != ("profiling_verbosity", "detailed")
    )
    print_pairs(
        console,
        [
            ("from", f"{record.onnx} (sha256 {fmt.short_hash(record.onnx_sha256)})"),
            ("builder", f"{record.flavour} {record.version}".strip()),
            ("targets", ", ".join(record.targets) or fmt.MISSING),
            *([("GPU", record.gpu)] if record.gpu else []),
            ("platform", record.platform),
            ("precision", precision_in_words(record)),
            *([("options", flags)] if flags else []),
            ("size", fmt.size(record.bytes)),
            ("layers", fmt.integer(record.layers) + (f" (outputs: {dtypes})" if dtypes else "")),
            ("build time", fmt.seconds(record.seconds)),
            ("sha256", fmt.short_hash(record.engine_sha256)),
        ],
    )
    print_profiles(console, record.profiles)
    for line in record.advice:
        print_words(console, visible_text(console, f"SLOW?  {line}", "bold yellow"))


def print_profiles(console: Console, profiles: Sequence[Profile]) -> None:
    """Prints the shapes that an engine accepts; nothing where no shape is free."""
    several = len(profiles) > 1
    rows = [
        (*([index] if several else []), name, *(fmt.shape(sizes) for sizes in (shape.min, shape.opt, shape.max)))
        for index, profile in enumerate(profiles)
        for name, shape in profile.items()
    ]
    if rows:
        numbered = ("Profile",) if several else ()
        print_table(console, "Shapes it accepts", (*numbered, "Input", "Min", "Opt", "Max"), rows)


def print_contents(console: Console, contents: Contents) -> None:
    """Prints what layers a network or an engine has."""
    types = list(contents.types.items())
    if not types:
        return
    rest = sum(count for _, count in types[_KINDS:])
    source = "the parsed network" if contents.source == "network" else "the built engine"
    rows = [*types[:_KINDS], *([("others", rest)] if rest else [])]
    print_table(console, f"{fmt.integer(contents.layers)} layers in {source}", ("Layer", "Times"), rows)
    if contents.formats:
        title = f"Formats, {fmt.count(contents.reformats, 'reformatting layer')}"
        print_table(console, title, ("Format", "Times"), list(contents.formats.items()))
