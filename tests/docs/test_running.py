"""What runs the blocks of pages notices what is wrong with them."""

from __future__ import annotations

import os
import textwrap

import pytest
from doc_output import difference
from doc_pages import Block, parse, skipped, transcript
from doc_shell import Shell, commands

TABLE = """
File              Precision     Size   Nodes
────────────────────────────────────────────
model.fp32.onnx   fp32        5.0 MB     360
model.int8.onnx   int8        1.9 MB     716

Built in 2.1 s with TensorRT-RTX 1.7.1.116 at 2026-11-28 07:15, sha256 0f3a99c2
max abs 1.5e-05
"""


@pytest.mark.parametrize(
    "shown",
    [
        TABLE,
        "model.fp32.onnx fp32 5.0 MB 360\n",
        "…\nmodel.fp32.onnx fp32 5.1 MB 360\n…\nBuilt in 1.1 s with TensorRT-RTX 1.8.0.1 at …\n…",
        "...\nmodel.int8.onnx … 716\n...",
        "…\nmax abs 3.1e-06",
    ],
)
def test_what_was_printed_is_found(shown):
    alone = shown if "…" in shown or "..." in shown or shown == TABLE else f"…\n{shown}…"
    assert difference(alone, TABLE) is None


@pytest.mark.parametrize(
    "shown",
    [
        "model.fp32.onnx fp32 5.0 MB 360",  # Not all of it, without a word.
        "…\nmodel.fp32.onnx fp32 5.0 MB 361\n…",  # Another count.
        "…\nmodel.fp32.onnx fp32 6.0 MB 360\n…",  # Another size.
        "…\nmax abs 1.5e-02",  # Another power of ten.
        "…\nmodel.int8.onnx … 716\n…\nmodel.fp32.onnx …\n…",  # Another order.
        "…\nmodel.fp32.onnx\n…",  # A piece of a line.
        "File …\n…\nnothing of it",
        "…\nFile Precision Size Nodes\nmodel.int8.onnx int8 1.9 MB 716\n…",  # A line between.
        "…\nsha256",
    ],
)
def test_what_was_not_printed_is_told(shown):
    assert difference(shown, TABLE)


def test_a_transcript_is_commands_with_what_they_print():
    text = "$ export a \\\n    --b\nmade\n\n$ for x in 1; do\n> echo $x\n> done\n1\n$ quiet\n"
    assert transcript(text) == [
        ("export a \\\n    --b", "made\n"),
        ("for x in 1; do\necho $x\ndone", "1"),
        ("quiet", ""),
    ]


def test_a_script_is_cut_into_commands():
    script = "# first\nexport a \\\n  --b\n\ncat <<X > f\nline\n\nX\nfor i in 1 2; do\n  echo $i\ndone\n"
    assert commands(script) == ["export a \\\n  --b", "cat <<X > f\nline\n\nX", "for i in 1 2; do\n  echo $i\ndone"]
    with pytest.raises(SyntaxError):
        commands("echo 'open\n")


def test_blocks_are_read_with_their_lines_and_reasons(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        textwrap.dedent(
            """\
            # Title

            ```bash
            true
            ```

            <!-- skip: next "needs an NVIDIA GPU" -->
            ```bash
            false
            ```
            <!-- invisible-code-block: python
            x = 1
            -->
            <!-- skip: next -->

            ```
            bare
            ```
            ```{note}
            A directive.
            ```
            """
        )
    )
    found = [part.parsed for part in parse(page, lambda _: None) if isinstance(part.parsed, Block)]
    assert [(block.language, block.text, block.line) for block in found] == [
        ("bash", "true\n", 4),
        ("bash", "false\n", 9),
        ("python", "x = 1\n", 12),
        ("", "bare\n", 17),
    ]
    assert [(block.text, reason) for block, reason in skipped(page)] == [
        ("false\n", '"needs an NVIDIA GPU"'),
        ("bare\n", None),
    ]


def test_a_shell_keeps_what_it_is_told(tmp_path):
    (tmp_path / "place").mkdir()
    with Shell(tmp_path / "place", tmp_path, dict(os.environ)) as shell:
        assert shell.run("mkdir a; cd a; export NAME=value") == (0, "")
        assert shell.run("echo $NAME; echo wrong >&2; false") == (1, "value\nwrong\n")
        assert shell.folder == tmp_path / "place" / "a"
        assert shell.run("cat <<X\nhere\nX") == (0, "here\n")
        with pytest.raises(TimeoutError):
            shell.run("sleep 5", timeout=0.2)
