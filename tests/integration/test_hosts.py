"""Which hosts are asked for a registry, and how: defaults, folders, and every key of `hosts.toml`.

Source: spec registry 2; the numbers in comments are those of its section 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import orlop
from orlop.bin.world import real_world
from orlop.protocol.errors import InvalidArgument
from orlop.protocol.registry.hosts import Capability, Host, find_hosts, is_loopback
from orlop.protocol.world import Tls
from tests.support.transfers import PLAIN, write_hosts

ALL = frozenset(Capability)


def hosts_of(root: Path | str, namespace: str, access: orlop.RegistryAccess | None = None) -> list[Host]:
    return find_hosts(real_world().files, str(root), namespace, access or orlop.RegistryAccess())


# Without configuration


@pytest.mark.parametrize(
    "namespace, base, verify, probe",
    [
        ("docker.io", "https://registry-1.docker.io/v2", True, False),
        ("quay.io", "https://quay.io/v2", True, False),
        ("quay.io:443", "https://quay.io:443/v2", True, False),
        ("quay.io:5000", "https://quay.io:5000/v2", True, False),
        ("quay.io:80", "https://quay.io:80/v2", True, False),
        ("localhost", "https://localhost/v2", False, False),
        ("localhost:443", "https://localhost:443/v2", False, False),
        ("[::1]:443", "https://[::1]:443/v2", False, False),
        ("localhost:80", "http://localhost:80/v2", None, False),
        ("127.0.0.1:80", "http://127.0.0.1:80/v2", None, False),
        ("localhost:5000", "https://localhost:5000/v2", False, True),
        ("127.9.8.7:5000", "https://127.9.8.7:5000/v2", False, True),
        ("[::1]:8080", "https://[::1]:8080/v2", False, True),
    ],
)
def test_a_registry_without_configuration(namespace: str, base: str, verify: bool | None, probe: bool) -> None:
    (host,) = hosts_of("", namespace)
    assert (host.base, host.probe) == (base, probe)
    assert (host.capabilities, host.headers) == (ALL, ())
    if verify is not None:
        assert host.tls == Tls(verify=verify)


@pytest.mark.parametrize(
    "namespace, base",
    [
        ("quay.io", "http://quay.io/v2"),
        ("quay.io:5000", "http://quay.io:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("docker.io", "https://registry-1.docker.io/v2"),
    ],
)
def test_plain_http_is_for_all_but_docker_hub(namespace: str, base: str) -> None:
    (host,) = hosts_of("", namespace, PLAIN)
    assert (host.base, host.probe) == (base, False)


@pytest.mark.parametrize(
    "host, loopback",
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.255.0.9:80", True),
        ("::1", True),
        ("[::1]", True),
        ("[::1]:5000", True),
        ("", False),
        ("127.256.0.1", False),
        ("126.example.com", False),
        ("127.example.com", False),
        ("[127:0:0:1]", False),
        ("[::1]:", False),
        ("127.0.1.1:", False),
        ("localhost:", False),
        ("quay.io", False),
        ("localhost.example.com", False),
        ("128.0.0.1", False),
        ("[::2]:5000", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("namespace, verify", [("quay.io", True), ("localhost:5000", False)])
def test_what_a_caller_asks_for_is_added(namespace: str, verify: bool) -> None:
    access = orlop.RegistryAccess(ca="/ca.pem", client_cert="/me.pem", client_key="/me.key")
    (host,) = hosts_of("", namespace, access)
    assert host.tls == Tls(verify, ("/ca.pem",), (("/me.pem", "/me.key"),))
    (host,) = hosts_of("", namespace, orlop.RegistryAccess(skip_verify=True, client_cert="/both.pem"))
    assert host.tls == Tls(False, (), (("/both.pem", ""),))


# Folders


@pytest.mark.parametrize(
    "namespace, folders, chosen",
    [
        ("quay.io:5000", ["quay.io_5000_", "quay.io:5000", "quay.io", "_default"], "quay.io_5000_"),
        ("quay.io:5000", ["quay.io:5000", "quay.io", "_default"], "quay.io:5000"),
        ("quay.io:5000", ["quay.io", "_default"], "_default"),
        ("quay.io:5000", ["quay.io"], None),
        ("quay.io", ["quay.io", "quay.io_5000_", "_default"], "quay.io"),
        ("quay.io", ["quay.io_5000_", "_default"], "_default"),
        ("quay.io", ["other.io"], None),
        ("quay.io", [], None),
        ("docker.io", ["docker.io", "registry-1.docker.io"], "docker.io"),
        ("[::1]:5000", ["[::1]_5000_", "[::1]:5000"], "[::1]_5000_"),
        ("[::1]:5000", ["[::1]:5000"], "[::1]:5000"),
    ],
)
def test_the_first_folder_that_exists_is_used(
    tmp_path: Path, namespace: str, folders: Sequence[str], chosen: str | None
) -> None:
    for folder in folders:
        write_hosts(tmp_path, folder, f'[host."https://from.{folders.index(folder)}"]')
    found = hosts_of(tmp_path, namespace)
    assert [host.authority for host in found[:-1]] == ([] if chosen is None else [f"from.{folders.index(chosen)}"])
    assert found[-1] == hosts_of("", namespace)[0]


def test_a_folder_of_folders_that_is_not_there_configures_nothing(tmp_path: Path) -> None:
    assert hosts_of(tmp_path / "none", "quay.io") == hosts_of("", "quay.io")


@pytest.mark.parametrize("text", [None, "", " \n\n"])
def test_a_folder_without_settings_holds_certificates(tmp_path: Path, text: str | None) -> None:
    folder = tmp_path / "quay.io"
    folder.mkdir()
    for name in ("b.crt", "a.crt", "me.cert", "me.key", "you.cert", "you.key", "read.me"):
        (folder / name).touch()
    if text is not None:
        (folder / "hosts.toml").write_text(text)
    (host,) = hosts_of(tmp_path, "quay.io")
    assert host.tls.ca == (f"{folder}/a.crt", f"{folder}/b.crt")
    assert host.tls.client == tuple((f"{folder}/{name}.cert", f"{folder}/{name}.key") for name in ("me", "you"))
    assert (host.base, host.tls.verify) == ("https://quay.io/v2", True)


def test_with_settings_the_certificates_beside_them_are_not_looked_at(tmp_path: Path) -> None:
    write_hosts(tmp_path, "quay.io", 'server = "https://quay.io"')
    (tmp_path / "quay.io" / "a.crt").touch()
    assert hosts_of(tmp_path, "quay.io")[0].tls.ca == ()


# hosts.toml


@pytest.mark.parametrize(
    "server, base",
    [
        ("https://up.test", "https://up.test/v2"),
        ("up.test", "https://up.test/v2"),
        ("up.test:5000", "https://up.test:5000/v2"),
        ("http://up.test:5000/", "http://up.test:5000/v2"),
        ("https://up.test/sub", "https://up.test/sub/v2"),
        ("https://up.test/v2", "https://up.test/v2"),
        ("https://up.test/sub/v2/", "https://up.test/sub/v2"),
        ("https://up.test/v2/sub", "https://up.test/v2/sub/v2"),
    ],
)
def test_the_server_is_the_last_host(tmp_path: Path, server: str, base: str) -> None:
    write_hosts(tmp_path, "_default", f'server = "{server}"\n[host."https://mirror.test"]')
    assert [host.base for host in hosts_of(tmp_path, "quay.io")] == ["https://mirror.test/v2", base]


@pytest.mark.parametrize(
    "url, base",
    [
        ("https://m.test/v2/proxy", "https://m.test/v2/proxy"),
        ("https://m.test/v2", "https://m.test/v2"),
        ("https://m.test/", "https://m.test"),
        ("https://m.test", "https://m.test"),
    ],
)
def test_override_path_takes_the_path_as_it_is(tmp_path: Path, url: str, base: str) -> None:
    write_hosts(tmp_path, "quay.io", f'[host."{url}"]\noverride_path = true')
    assert hosts_of(tmp_path, "quay.io")[0].base == base


def test_mirrors_stand_in_the_order_of_the_file(tmp_path: Path) -> None:  # 28
    text = "".join(f'[host."https://{name}.test"]\n' for name in ("z", "a", "m", "b"))
    write_hosts(tmp_path, "quay.io", text)
    found = [host.authority for host in hosts_of(tmp_path, "quay.io")]
    assert found == ["z.test", "a.test", "m.test", "b.test", "quay.io"]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", {"capabilities": ALL}),
        ('capabilities = ["pull"]', {"capabilities": {Capability.PULL}}),
        ('capabilities = ["Pull", "RESOLVE"]', {"capabilities": {Capability.PULL, Capability.RESOLVE}}),
        ('capabilities = ["push", "referrers"]', {"capabilities": {Capability.PUSH, Capability.REFERRERS}}),
        ('ca = "my.pem"', {"ca": ("{folder}/my.pem",)}),
        ('ca = ["/a.pem", "sub/b.pem"]', {"ca": ("/a.pem", "{folder}/sub/b.pem")}),
        ('client = "both.pem"', {"client": (("{folder}/both.pem", ""),)}),
        ('client = ["a.pem", "/b.pem"]', {"client": (("{folder}/a.pem", ""), ("/b.pem", ""))}),
        ('client = [["a.pem", "a.key"], ["b.pem", "/b.key"]]',
         {"client": (("{folder}/a.pem", "{folder}/a.key"), ("{folder}/b.pem", "/b.key"))}),
        ("skip_verify = true", {"verify": False}),
        ("skip_verify = false", {"verify": True}),
        ('[{table}header]\nX-One = "1"\nX-Two = ["2", "3"]',
         {"headers": (("X-One", "1"), ("X-Two", "2"), ("X-Two", "3"))}),
        ('dial_timeout = "1m30s"', {"dial_s": 90.0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["mirror", "server", "registry itself"])
def test_a_setting_is_for_the_host_that_it_stands_at(
    tmp_path: Path, where: str, line: str, expected: Mapping[str, Any]
) -> None:
    """At top level it is for the server, and for the registry itself where no server is named."""
    table = 'host."https://it.test".' if where == "mirror" else ""
    written = line.replace("{table}", table)
    other = '\n[host."https://other.test"]\n'
    texts = {
        "mirror": f'[host."https://it.test"]\n{written}{other}',
        "server": f'server = "https://it.test"\n{written}{other}',
        "registry itself": f"{written}{other}",
    }
    write_hosts(tmp_path, "quay.io", texts[where])
    name = "quay.io" if where == "registry itself" else "it.test"
    found = {host.authority: shown(host) for host in hosts_of(tmp_path, "quay.io")}
    plain = shown(Host("https", "other.test"))
    folder = str(tmp_path / "quay.io")
    assert found[name] == plain | {key: placed(value, folder) for key, value in expected.items()}
    assert found["other.test"] == plain


def shown(host: Host) -> dict[str, Any]:
    return {
        "capabilities": host.capabilities,
        "ca": host.tls.ca,
        "client": host.tls.client,
        "verify": host.tls.verify,
        "headers": host.headers,
        "dial_s": host.dial_s,
    }


def placed(value: Any, folder: str) -> Any:
    if isinstance(value, tuple):
        return tuple(placed(each, folder) for each in value)
    return value.replace("{folder}", folder) if isinstance(value, str) else value


def test_a_caller_who_skips_verification_skips_it_everywhere(tmp_path: Path) -> None:
    write_hosts(tmp_path, "quay.io", 'ca = "a.pem"\n[host."https://m.test"]\nskip_verify = false\nca = "m.pem"')
    access = orlop.RegistryAccess(skip_verify=True, ca="/own.pem")
    folder = tmp_path / "quay.io"
    found = [(host.tls.verify, host.tls.ca) for host in hosts_of(tmp_path, "quay.io", access)]
    assert found == [(False, (f"{folder}/m.pem", "/own.pem")), (False, (f"{folder}/a.pem", "/own.pem"))]


BROKEN = [
    'server = "unfinished',
    "server = 5",
    'capabilities = ["pull", "bogus"]',
    'capabilities = "pull"',
    '[host."https://m.test"]\ncapabilities = ["pul"]',
    '[host."ftp://m.test"]',
    '[host."https://"]',
    '[host."https://user@m.test"]',
    'server = "ftp://up.test"',
    '[host."https://m.test"]\nskip_verify = "yes"',
    '[host."https://m.test"]\noverride_path = 1',
    '[host."https://m.test"]\ndial_timeout = "soon"',
    '[host."https://m.test"]\nclient = [["a", "b", "c"]]',
    '[host."https://m.test".header]\nX = 5',
    "\ufffd = [",
]


@pytest.mark.parametrize("text", BROKEN)
def test_settings_that_cannot_be_understood_are_refused_by_name(tmp_path: Path, text: str) -> None:
    write_hosts(tmp_path, "quay.io", text)
    with pytest.raises(InvalidArgument) as caught:
        hosts_of(tmp_path, "quay.io")
    assert f"{tmp_path}/quay.io/hosts.toml" in str(caught.value)


def test_settings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (write_hosts(tmp_path, "quay.io", "") / "quay.io" / "hosts.toml").write_bytes(b'server = "\xff\xfe"')
    with pytest.raises(InvalidArgument, match=r"hosts\.toml"):
        hosts_of(tmp_path, "quay.io")
