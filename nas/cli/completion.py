"""``nas completion``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

Shell = Literal["bash", "zsh", "fish", "powershell"]


def command(shell: Annotated[Shell, typer.Argument(help="Shell to complete in.", metavar="bash|zsh|fish|powershell")]) -> None:
    """Print a script that lets a shell complete commands, options, devices and networks: nas completion bash >> ~/.bashrc."""
    from typer._completion_shared import get_completion_script

    sys.stdout.write(
        get_completion_script(prog_name="nas", complete_var="_NAS_COMPLETE", shell="pwsh" if shell == "powershell" else shell) + "\n"
    )
