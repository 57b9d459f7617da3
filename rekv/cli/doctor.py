"""`rekv doctor`: what the machine has, as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rekv.doctor import Finding, examine

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, and what to do about what is missing.

    The exit code is 1 if there is a problem that keeps rekv from working, else 0.
    """
    findings = examine()
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        click.echo(json.dumps(report(findings), indent=2))
    else:
        show(findings, Console(highlight=False))
    raise SystemExit(1 if problems else 0)


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """For machines: `ok` is what the exit code says."""
    return {
        "ok": all(finding.level != "problem" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def show(findings: Sequence[Finding], console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.level, style=STYLES[finding.level]), finding.name, text)
    console.print(table)
    console.print(f"\n{verdict(findings)}", markup=False)


def verdict(findings: Sequence[Finding]) -> str:
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if problems:
        return f"rekv cannot work here: problems: {problems}, warnings: {warnings}. The arrows say what to do."
    if warnings:
        return f"rekv works here; warnings: {warnings}."
    return "All is well."
