"""Settings, completion, and hints about where things are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.registries import make_layout
from tests.support.shell import CLI, ENVIRONMENT, Shell, one_line


def test_the_default_settings_are_good_and_change_nothing(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "orlop.toml"
    file.write_text(shell.out("config", "default"))
    done = shell.run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, 'root = "/var/lib/orlop"\n')


def test_what_differs_is_said(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "orlop.toml"
    file.write_text(
        'root = "/srv"\nsocket_mode = 0o660\n[gc]\ngrace_s = 3600.0\n[registry]\nhosts_dir = "/etc/hosts.d"\n'
    )
    lines = shell.out("config", "check", str(file)).splitlines()
    assert lines == [
        'root = "/srv"',
        "socket_mode = 0o660",
        'registry.hosts_dir = "/etc/hosts.d"',
        "gc.grace_s = 3600.0",
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('root = "/srv"\nnothing = 1\n', "nothing"),
        ('root = "/srv"\n[gc]\ngrace_s = "long"\n', "grace_s"),
        ('root = "/srv"\n[gc]\nshare = 2.0\n', "share"),
        ('root = "/srv"\n[gc\n', "orlop.toml"),
        ("", "no store"),
    ],
)
def test_a_slip_is_named(shell: Shell, tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "orlop.toml"
    file.write_text(text)
    done = shell.run("config", "check", str(file))
    assert done.returncode == 1
    one_line(done.stderr)
    assert word in done.stderr


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell: Shell, shell_name: str) -> None:
    script = shell.out("completion", shell_name)
    assert "_ORLOP_COMPLETE" in script
    assert "orlop" in script


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """Asked as the script asks."""
    environment = {
        **ENVIRONMENT,
        "HOME": str(tmp_path),
        "_ORLOP_COMPLETE": "bash_complete",
        "COMP_WORDS": "orlop images ex",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(CLI, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.split() == ["plain,export"]
    environment |= {"COMP_WORDS": "orlop pull --pla", "COMP_CWORD": "2"}
    done = subprocess.run(CLI, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.split() == ["plain,--platform", "plain,--plain-http"]


def test_an_image_of_another_namespace_is_pointed_at(shell: Shell, tmp_path: Path) -> None:
    make_layout(tmp_path / "layout", "--layers", "1", "--tag", "latest")
    shell.out("-n", "there", "images", "import", str(tmp_path / "layout"), "--base-name", "example.org/app", "-q")
    done = shell.run("images", "label", "example.org/app:latest")
    assert done.returncode == 3
    one_line(done.stderr)
    assert "it is in namespace there: use -n there" in done.stderr
    done = shell.run("images", "label", "example.org/app:other")
    assert "namespace" not in done.stderr
