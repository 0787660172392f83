"""docs/cli.md, made from the commands themselves: `python -m orlop.bin.manual > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from .cli import cli
from .load.cli import main as load

__all__ = ["manual"]

_HEAD = """# The command line

Made from the commands (`make docs`). `orlop COMMAND --help` says the same.

Exit status: 0 done, 1 failed (also in part), 2 usage, 3 not found, 130 interrupted. Errors are one sentence on standard
error, with a hint where there is one; progress goes there, too, as bars on a terminal and as lines elsewhere. Lists and
infos take `--json`. `NO_COLOR` and pipes get no colour. Where a command takes several names it does what it can,
reports the rest, and ends with 1.
"""


def manual() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_command(cli, "orlop", 2), *_command(load, "orlop-load", 2)]).rstrip() + "\n"


def _command(command: click.Command, path: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    arguments = " ".join(each.make_metavar(context) for each in command.params if isinstance(each, click.Argument))
    title = " ".join(part for part in (path, arguments, "COMMAND" if isinstance(command, click.Group) else "") if part)
    yield f"{'#' * level} `{title}`"
    yield ""
    yield from _text(command)
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield "| Option | |"
        yield "|---|---|"
        for option in options:
            record = option.get_help_record(context)
            if record is not None:
                names, text = record
                yield f"| `{names}` | {text.replace('|', chr(92) + '|')} |"
        yield ""
    if isinstance(command, click.Group):
        done: dict[int, str] = {}
        for name in sorted(command.commands):
            inner = command.commands[name]
            if inner.hidden or id(inner) in done:
                continue
            done[id(inner)] = name
            shown = inner.name or name
            aliases = sorted(other for other, same in command.commands.items() if same is inner and other != shown)
            yield from _command(inner, f"{path} {shown}", min(level + 1, 4))
            if aliases:
                yield f"Also: {', '.join(f'`{alias}`' for alias in aliases)}."
                yield ""


def _text(command: click.Command) -> Iterator[str]:
    """What a help text says: paragraphs, and examples where click was told to leave lines alone."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```sh"
            yield paragraph.removeprefix("\b").strip("\n")
            yield "```"
        else:
            yield paragraph
        yield ""


if __name__ == "__main__":
    click.echo(manual(), nl=False)
