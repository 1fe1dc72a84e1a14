"""Draws the README's picture of a terminal from a real run: `python docs/pictures/terminal.py`, about a minute.

The commands run in a new folder with the example's checkpoint in it. What they print holds no times, so that the
picture changes where the output does.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_name("terminal.svg")
WIDTH = 84
CHECKPOINT = "examples/checkpoints/s2mlpv2_nano_cifar10.safetensors"
COMMANDS = (
    f"s2mlp-deploy export s2mlpv2_nano --checkpoint {CHECKPOINT} -o build/cifar10",
    f"s2mlp-deploy parity s2mlpv2_nano --checkpoint {CHECKPOINT} build/cifar10",
)

_THEME = TerminalTheme(
    (23, 27, 34),
    (214, 220, 228),
    [
        *((23, 27, 34), (255, 123, 114), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255)),
        *((86, 212, 221), (214, 220, 228)),
    ],
)
# Rich's own has fonts of another host in it, which a picture in a page may not load.
_FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font-size: 16px; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Runs the commands and writes the picture."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH, legacy_windows=False)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for command in COMMANDS:
            console.print(_typed(command))
            console.print(Text.from_ansi(run(command, Path(folder))))
    drawn = console.export_svg(title="s2mlp-deploy", theme=_THEME, code_format=_FORMAT, unique_id="terminal")
    PICTURE.write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n")
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB\n")


def run(command: str, folder: Path) -> str:
    """What a command prints on a terminal of :data:`WIDTH` columns, with its colours."""
    environment = os.environ | {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    environment |= {"PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    _, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "s2mlp_deploy", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.rstrip() + "\n"


def _typed(command: str) -> Text:
    """A command as it is typed, on as many lines as it takes."""
    lines, line = [], "$"
    for word in command.split():
        if len(line) + len(word) + 3 > WIDTH:
            lines.append(f"{line} \\")
            line = "   "
        line += f" {word}"
    prompt = Text("\n".join([*lines, line]), "bold")
    prompt.stylize("green", 0, 1)
    return prompt


if __name__ == "__main__":
    main()
