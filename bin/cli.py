"""orlop: the command line. This file holds what all commands share; the commands are in `commands/`."""

from __future__ import annotations

import os
import sys

import click

from ..protocol.errors import OrlopError
from .commands import (
    checking,
    collection,
    completion,
    config,
    containers,
    content,
    events,
    images,
    install,
    leases,
    namespaces,
    pruning,
    pull,
    push,
    referrers,
    server,
    snapshots,
    top,
    version,
)
from .output import EXIT_FAILED, fail
from .session import Session

__all__ = ["main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Which store: --address or --store; else ORLOP_ADDRESS or ORLOP_STORE; else the system's socket if "
    "its file exists; else the user's own store.",
)
@click.option("--address", "-a", metavar="ADDRESS", help="A server: unix:PATH or tcp:HOST:PORT.")
@click.option("--store", "-s", metavar="DIR", help="A store's folder, used without any daemon.")
@click.option("--namespace", "-n", metavar="NAME", help="Default: $ORLOP_NAMESPACE, $CONTAINERD_NAMESPACE, default.")
@click.option("--lease", metavar="ID", help="What the command makes joins this lease.")
@click.option("--timeout", type=float, metavar="SECONDS", help="For the whole command.")
@click.option("--debug", is_flag=True, help="Log to stderr, and show where errors come from.")
@click.version_option(version.__version__, "--version", "-v", prog_name="orlop")
@click.pass_context
def cli(
    context: click.Context,
    address: str | None,
    store: str | None,
    namespace: str | None,
    lease: str | None,
    timeout: float | None,
    debug: bool,
) -> None:
    """A store for container images and artefacts.

    \b
    orlop pull redis                         # docker.io/library/redis:latest
    orlop --store ./store images ls          # no daemon needed
    orlop -n ci content ls --json 'labels.team==build'
    """
    if address and store:
        raise click.UsageError("--address and --store exclude each other")
    context.obj = Session.find(address, store, namespace, lease, timeout, debug, os.environ)


for transfer in (pull.pull, push.push, push.copy, referrers.referrers):
    cli.add_command(transfer)
assert pruning  # its commands stand in the groups of images and content
for group, aliases in (
    (images.images, ("image", "i")),
    (namespaces.namespaces, ("namespace", "ns")),
    (containers.containers, ("container", "c")),
    (content.content, ()),
    (snapshots.snapshots, ("snapshot",)),
    (leases.leases, ("lease",)),
    (collection.gc, ()),
    (server.plugins, ("plugin",)),
    (events.events, ("event",)),
):
    cli.add_command(group)
    for alias in aliases:
        hidden = click.Group(alias, group.commands, hidden=True) if isinstance(group, click.Group) else group
        if hidden is not group:
            cli.add_command(hidden)
cli.add_command(version.version)
for command in (install.install, server.info, completion.completion, config.config, top.top):
    cli.add_command(command)
for command in (collection.why, collection.undelete, collection.df, checking.check, checking.repair):
    cli.add_command(command)


def main() -> None:
    """The program. Exit codes: 0 done, 1 failed, also in part, 2 usage, 3 not found, 130 interrupted."""
    debug = "--debug" in sys.argv
    try:
        code = cli.main(prog_name="orlop", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("orlop: interrupted", err=True)
        sys.exit(130)
    except OrlopError as error:
        if debug:
            raise
        fail(error, "orlop")
    except BrokenPipeError:  # the reader of our output went, say `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else 0)
