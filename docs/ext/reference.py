"""A Sphinx extension: puts what is generated into the pages that ask for it, and links types to where they are told."""

from __future__ import annotations

from typing import Any

import record_pages
from docutils import nodes
from generated import expand

from s2mlp_deploy import api


def _read(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = expand(source[0])


def _keep_colons(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """A property's first line is text: napoleon takes what stands before a colon there for a type."""
    if what == "property":
        lines.insert(0, "")


def _link(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Leads from a name's own module to the API that shows it, or to the table of a record."""
    name = node["reftarget"]
    parts = name.split(".")
    for count in (1, 2):
        if parts[0] == "s2mlp_deploy" and len(parts) > count and parts[-count] in api.__all__:
            shown = ".".join(["s2mlp_deploy", "api", *parts[-count:]])
            domain = env.get_domain("py")
            link = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", shown, node, content)
            if link is not None:
                return link
    found = record_pages.place_of(name)
    if found is None:
        return None
    page, anchor = found
    target = app.builder.get_relative_uri(node["refdoc"], page)
    return nodes.reference("", "", content, internal=True, refuri=f"{target}#{anchor}")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
    app.connect("missing-reference", _link)
    return {"parallel_read_safe": True, "version": "1"}
