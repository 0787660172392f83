"""orlop completion"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_VARIABLE = "_ORLOP_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete orlop's commands and options.

    \b
    orlop completion bash > /etc/bash_completion.d/orlop
    orlop completion zsh > "${fpath[1]}/_orlop"
    orlop completion fish > ~/.config/fish/completions/orlop.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "orlop", _VARIABLE).source())
