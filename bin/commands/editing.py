"""orlop content edit"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial

import click

from ...actors.timestamps import rfc3339
from ...protocol.errors import OrlopError
from ..editing import EditedCopy, run_editor
from ..session import Session
from ..world import RealClock

__all__ = ["edit"]


@click.command()
@click.argument("digest")
@click.option("--editor", metavar="COMMAND", envvar=["VISUAL", "EDITOR"], help="Default: what VISUAL or EDITOR names.")
@click.option(
    "--validate", is_flag=True, help="Store only what is still what it was: an index, manifest, config or JSON."
)
@click.pass_obj
def edit(session: Session, digest: str, editor: str | None, validate: bool) -> None:
    """Change a copy of a blob in an editor, store the result as a blob of its own, and print its digest.

    It has the labels of the old one, but for those that speak of the old bytes, and stays until it is removed. The old
    blob, and what refers to it, stay as they are. An editor that changes nothing, or ends badly, stores nothing.

    \b
    orlop content edit --validate sha256:...
    EDITOR='sed -i s/amd64/arm64/' orlop content edit sha256:...
    """
    if not editor:
        raise click.UsageError("no editor; set VISUAL or EDITOR, or give --editor COMMAND")
    folder = tempfile.mkdtemp(prefix="orlop-edit-")  # for nobody else's eyes
    keep = False
    try:
        copy = session.run(lambda store: EditedCopy.fetch(store, digest, folder))
        if validate:
            copy.can_be_validated()
        run_editor(editor, copy.path)
        found = copy.digest()
        if found == digest:
            click.echo(digest)
            click.echo("unchanged", err=True)
            return
        try:
            if validate:
                copy.validate()
            now = rfc3339(RealClock().now_ns())
            session.run(partial(copy.store, digest=found, now=now))
        except BaseException as error:
            keep = True  # nobody's work is thrown away
            _say_where(error, copy.path)
            raise
        click.echo(found)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _say_where(error: BaseException, path: str) -> None:
    text = f"what you wrote is in {path}"
    if isinstance(error, OrlopError):
        error.hint = f"{error.hint}; {text}" if error.hint else text
    else:
        click.echo(text, err=True)
