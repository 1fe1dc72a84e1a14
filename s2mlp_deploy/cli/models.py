"""``s2mlp-deploy models``."""

from __future__ import annotations

import typer
from rich.console import Console

from s2mlp_deploy import api
from s2mlp_deploy.cli.console import Json, emit
from s2mlp_deploy.cli.options import examples
from s2mlp_deploy.report.tables import print_table


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog=examples("models", "models --json"))
    def models(as_json: Json = False) -> None:
        """List the zoo: configurations, counted and published figures."""
        entries = api.models()

        def render(console: Console) -> None:
            rows = []
            for entry in entries:
                config, paper = entry.config, entry.paper
                height, width = config.image_size
                rows.append(
                    (
                        entry.name,
                        f"{config.parameters() / 1e6:.1f} M",
                        f"{config.macs() / 1e9:.2f} G",
                        f"{paper.parameters:g} M / {paper.flops:g} G / {paper.top1:.1f} %" if paper else "",
                        f"{height}x{width}",
                        paper.source if paper else "",
                    )
                )
            print_table(
                console,
                "Models",
                ("name", "parameters", "MACs", "paper: parameters / MACs / top-1", "input", "source"),
                rows,
            )
            for entry in entries:
                if entry.paper and entry.paper.remark:
                    console.print(f"{entry.name}: {entry.paper.remark}", highlight=False)
            console.print("No pretrained weights of the papers were published; bring a checkpoint.")

        document = [
            {
                "name": entry.name,
                "description": entry.description,
                "config": entry.config.to_dict(),
                "parameters": entry.config.parameters(),
                "macs": entry.config.macs(),
                "paper": entry.paper,
            }
            for entry in entries
        ]
        emit(document, as_json=as_json, render=render)
