"""The command line, from its own help."""

from __future__ import annotations

import re
from typing import Any

import typer
from wording import code, table

from s2mlp_deploy.cli.main import app

KINDS = {
    "<str>": "text", "<path>": "path", "<int>": "integer", "<int range>": "integer", "<float>": "number",
    "<float range>": "number",
}  # fmt: skip
ROOT: Any = typer.main.get_command(app)


def commands() -> str:
    """A section for each command: what it does, its arguments and options, its examples."""
    return "\n".join(_section(name, command) for name, command in ROOT.commands.items())


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    usage = " ".join(part.metavar if part.required else f"[{part.metavar.strip('[]')}]" for part in arguments)
    parts = [f"## {name}", "", command.help.strip(), "", "```text"]
    parts += [" ".join(f"s2mlp-deploy {name} {usage} [OPTIONS]".split()), "```", ""]
    parts += [table(("option", "value", "default", "what it is for"), (_row(part, context) for part in shown))]
    if examples := re.findall(r"^ *(s2mlp-deploy .*)$", command.epilog or "", re.MULTILINE):
        parts += ["```text", *examples, "```", ""]
    return "\n".join(parts)


def _row(parameter: Any, context: Any) -> tuple[str, str, str, str]:
    """An argument or option, as the command's own help tells of it."""
    usage, told = parameter.get_help_record(context)
    text, _, extra = told.removesuffix("]").rpartition("  [") if told.endswith("]") else (told, "", "")
    remarks = extra.split("; ") if extra else []
    default = next((remark.removeprefix("default: ") for remark in remarks if remark.startswith("default: ")), "")
    text = " ".join([text, *(f"{remark.capitalize()}." for remark in remarks if not remark.startswith("default: "))])
    if parameter.param_type_name == "argument":
        return code(parameter.metavar), "", default, text
    options = (*parameter.opts, *parameter.secondary_opts)
    value = usage.removeprefix(", ".join(sorted(options, key=len))).strip()
    # A fallback in brackets is one in words, or one that is found out when the command runs.
    return ", ".join(map(code, options)), KINDS.get(value) or code(value), code(default.strip("()")), text
