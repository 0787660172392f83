"""A certificate authority of the tests' own, and what it signs; made with the openssl program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Authority", "Pair", "needs_openssl"]

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
_CA = """basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_LEAF = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = {use}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    def joined(self, path: Path) -> Path:
        """Both in one file."""
        path.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        return path


class Authority:
    """Signs certificates for servers on this machine's loopback and for clients; its files lie in `folder`."""

    def __init__(self, folder: Path, name: str = "an authority of the tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._own = self._pair("ca")
        request = self._request("ca", name)
        self._sign(request, self._own.certificate, _CA, "-signkey", str(self._own.key))

    @property
    def certificate(self) -> Path:
        return self._own.certificate

    def server(self, *names: str) -> Pair:
        """For these names; none given: those of the loopback."""
        found = names or ("DNS:localhost", "IP:127.0.0.1")
        return self._leaf("server", "serverAuth", f"subjectAltName = {', '.join(found)}\n")

    def client(self, name: str = "ann") -> Pair:
        return self._leaf(name, "clientAuth")

    def serving(self, *, asks_for_ours: bool = False) -> ssl.SSLContext:
        """How a server of this authority speaks TLS; `asks_for_ours`: only with clients of this authority, too."""
        pair = self.server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if asks_for_ours:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def asking(self, client: Pair | None = None) -> ssl.SSLContext:
        """How somebody who trusts this authority asks such a server."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    def _leaf(self, name: str, use: str, more: str = "") -> Pair:
        pair = self._pair(name)
        if not pair.certificate.exists():
            by = ("-CA", str(self._own.certificate), "-CAkey", str(self._own.key), "-CAcreateserial")
            self._sign(self._request(name, name), pair.certificate, _LEAF.format(use=use) + more, *by)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _request(self, name: str, subject: str) -> Path:
        path = self._folder / f"{name}.csr"
        key = str(self._pair(name).key)
        _openssl("req", "-new", *_KEY, "-keyout", key, "-out", str(path), "-subj", f"/CN={subject}")
        return path

    def _sign(self, request: Path, target: Path, extensions: str, *by: str) -> None:
        file = request.with_suffix(".ext")
        file.write_text(extensions)
        _openssl(
            "x509",
            "-req",
            "-in",
            str(request),
            "-out",
            str(target),
            "-days",
            "30",
            "-sha256",
            "-extfile",
            str(file),
            *by,
        )


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
