"""``vidcvae doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vidcvae.cli import command, ui
from vidcvae.errors import EXIT_FAILURE


def doctor(json: command.Json = False) -> None:
    """Check Python, PyTorch, processor, memory, disk and data. Exits with code 1 if something needed is broken.

    Examples:
      vidcvae doctor
    """
    from vidcvae.workflow.doctor import examine

    findings = list(examine())
    broken = any(finding.state == "broken" for finding in findings)
    if json:
        ui.emit({"ok": not broken, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            ui.say(f"{finding.state:<7}{finding.name:<13}{finding.value}")
            for text in (finding.says, finding.mend and f"-> {finding.mend}"):
                if text:
                    ui.say(f"{'':<20}{text}")
    if broken:
        raise typer.Exit(EXIT_FAILURE)
