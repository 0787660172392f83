"""Platforms: parsing, normalising, and which of an index's manifests suits a machine best.

One matcher for everything, the *compatible* one. Source: spec registry 8.3 and 8.4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..errors import InvalidArgument
from ..identifiers import quote

__all__ = ["Platform", "acceptable", "best_first", "parse_platform"]

_PART = re.compile(r"[A-Za-z0-9_.-]+")
_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\))?")
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64"}
_KNOWN_OS = {"aix", "android", "darwin", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9",
             "solaris", "wasip1", "windows", "macos"}  # fmt: skip


class Platform(msgspec.Struct, frozen=True, rename={"os_version": "os.version", "os_features": "os.features"}):
    """As in an OCI index. Source: OCI image-spec, image index."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normalized(platform: Platform) -> Platform:
    """The spelling in which two platforms can be compared."""
    os = "darwin" if platform.os.lower() == "macos" else platform.os.lower()
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if architecture == "armhf":
        architecture, variant = "arm", "v7"
    elif architecture == "armel":
        architecture, variant = "arm", "v6"
    if architecture == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    elif architecture == "arm64":
        variant = variant if variant.startswith("v") or not variant else "v" + variant
        variant = {"v8": "", "v8.0": "", "v9.0": "v9"}.get(variant, variant)
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return msgspec.structs.replace(platform, os=os, architecture=architecture, variant=variant)


def parse_platform(text: str, host: Platform) -> Platform:
    """`os`, `architecture`, `os/architecture` or `os/architecture/variant`. Raises InvalidArgument."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts[1:]):
        raise InvalidArgument(f"platform {quote(text)}", hint="write it like linux/arm64 or linux/arm/v7")
    match = _OS.fullmatch(parts[0])
    if match is None:
        raise InvalidArgument(f"platform {quote(text)}", hint="write it like linux/arm64 or linux/arm/v7")
    name, version, features = match.group(1), match.group(2) or "", match.group(3) or ""
    wanted = tuple(feature for feature in features.split("+") if feature)
    if len(parts) == 1:
        if name.lower() in _KNOWN_OS:
            return normalized(Platform(name, host.architecture, host.variant, version, wanted))
        alone = normalized(Platform(host.os, name))
        if alone.architecture not in _KNOWN_ARCHITECTURES:
            raise InvalidArgument(f"platform {quote(text)} is neither an operating system nor an architecture")
        return alone
    return normalized(Platform(name, parts[1], parts[2] if len(parts) == 3 else "", version, wanted))


def acceptable(wanted: Platform) -> list[tuple[str, str]]:
    """(architecture, variant) pairs that run on `wanted`, best first."""
    wanted = normalized(wanted)
    architecture, variant = wanted.architecture, wanted.variant
    if architecture == "amd64":
        level = int(variant[1:]) if re.fullmatch(r"v[2-9]", variant) else 1
        own = [("amd64", f"v{n}") for n in range(level, 1, -1)]
        return [*own, ("amd64", ""), ("386", "")]
    if architecture == "arm":
        return _arm(int(variant[1:]) if re.fullmatch(r"v[5-9]", variant) else 7)
    if architecture == "arm64":
        return [*(("arm64", v) for v in _arm64(variant)), *_arm(8)]
    return [(architecture, variant)]


def best_first(candidates: Sequence[Platform | None], wanted: Platform) -> list[int]:
    """Positions of the candidates that suit `wanted`, best first; those without a platform come last."""
    order = {pair: rank for rank, pair in enumerate(acceptable(wanted))}
    wanted = normalized(wanted)
    ranked: list[tuple[int, int, int]] = []
    for at, candidate in enumerate(candidates):
        if candidate is None:
            ranked.append((len(order), 0, at))
            continue
        found = normalized(candidate)
        rank = order.get((found.architecture, found.variant))
        if rank is None or found.os != wanted.os or not set(found.os_features) <= set(wanted.os_features):
            continue
        if found.os == "windows" and not _windows_suits(found.os_version, wanted.os_version):
            continue
        ranked.append((rank, -len(found.os_features), at))
    return [at for _, _, at in sorted(ranked)]


def _arm(version: int) -> list[tuple[str, str]]:
    return [("arm", f"v{n}") for n in range(version, 4, -1)]


def _arm64(variant: str) -> list[str]:
    match = re.fullmatch(r"v([89])(?:\.(\d+))?", variant)
    if match is None:
        return [variant] if not variant else [variant, ""]
    major, minor = int(match.group(1)), int(match.group(2) or 0)
    names = []
    if major == 9:
        names = [f"v9.{n}" if n else "v9" for n in range(minor, -1, -1)]
        minor = 5 + minor  # v9.n has what v8.(n+5) has
    return [*names, *(f"v8.{n}" for n in range(minor, 0, -1)), ""]


def _windows_suits(image: str, host: str) -> bool:
    if not image or not host:
        return True
    a, b = _numbers(image), _numbers(host)
    if a[:2] != b[:2]:
        return False
    build, host_build = a[2], b[2]
    if host_build < 20348:
        return build == host_build
    known = [20348, 26100]
    below = [n for n in known if n <= host_build]
    floor = below[-2] if len(below) > 1 else known[0]
    return floor <= build <= host_build


def _numbers(version: str) -> list[int]:
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return [*parts, 0, 0, 0][:3]


_KNOWN_ARCHITECTURES = {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
                        "ppc64le", "riscv64", "s390x", "wasm"}  # fmt: skip
