"""Authentication with a registry: challenges, tokens, and which host may see which credentials.

Source: spec registry 3; RFC 7235 for challenges, the distribution project's token specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from ..errors import Unauthenticated, Unavailable
from ..messages import Credentials

__all__ = ["Authorizer", "Challenge", "parse_challenges"]

_CLIENT_ID = "orlop-client"
_MAX_TOKEN_BYTES = 1024 * 1024
_EXPIRY_SLACK_S = 10.0
# A scheme may stand alone, or have one word of base64 instead of parameters.
_SCHEME = re.compile(r"[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?=[\s,]|$)(?:\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$))?")
_PARAMETER = re.compile(r'\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(,|$)')


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate that a server offers; `scheme` in lower case."""

    scheme: str
    parameters: dict[str, str]


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float = 0


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers, in order. What cannot be read is left out."""
    found = []
    for header in headers:
        at = 0
        while match := _SCHEME.match(header, at):
            at = match.end()
            parameters: dict[str, str] = {}
            while pair := _PARAMETER.match(header, at):
                name, quoted, bare = pair.group(1), pair.group(2), pair.group(3)
                parameters[name.lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                at = pair.end()
            found.append(Challenge(match.group(1).lower(), parameters))
    return found


class Authorizer:
    """Knows how to speak to one registry's hosts. One per pull; concurrent requests share one token request.

    Credentials and `headers`, both by host, are only ever sent to the host they were given for and to the token server
    that it names. A `scope` is one or several, with spaces between.
    """

    def __init__(
        self,
        credentials: Mapping[str, Credentials],
        client: httpx.AsyncClient,
        headers: Mapping[str, Sequence[tuple[str, str]]],
    ) -> None:
        self._credentials = credentials
        self._client = client
        self._configured = headers
        self._headers: dict[tuple[str, str], tuple[str, float]] = {}  # (host, scope) -> header, good until
        self._lock = trio.Lock()

    def header(self, host: str, scope: str) -> str | None:
        """What to send to a host, if that is known by now."""
        known = self._headers.get((host, scope))
        return known[0] if known is not None and trio.current_time() < known[1] else None

    async def answer(self, host: str, scope: str, response: httpx.Response, used: str | None, *, again: bool) -> None:
        """Learn from a 401. Raises Unauthenticated when there is nothing better to try.

        `again`: this request was refused before. A token that was good once may just have ended.
        """
        async with self._lock:
            if self.header(host, scope) not in (None, used):
                return  # another request learned it meanwhile
            challenges = parse_challenges(response.headers.get_list("www-authenticate"))
            bearer = next((c for c in challenges if c.scheme == "bearer" and "realm" in c.parameters), None)
            if bearer is not None:
                if again and used is not None and used.startswith("Bearer") and "error" in bearer.parameters:
                    raise Unauthenticated(f"{host} refuses its own token: {bearer.parameters['error']}")
                self._headers[host, scope] = await self._fetch_token(host, scope, bearer.parameters)
                return
            if any(challenge.scheme == "basic" for challenge in challenges):
                credentials = self._credentials.get(host)
                if credentials is None or not credentials.user:
                    raise Unauthenticated(f"{host}: no basic auth credentials", hint="use --user name:password")
                if used is not None:
                    raise Unauthenticated(f"{host} refuses the credentials of {credentials.user}")
                basic = httpx.BasicAuth(credentials.user, credentials.secret)
                request = next(basic.auth_flow(httpx.Request("GET", "http://unused/")))
                self._headers[host, scope] = (request.headers["Authorization"], float("inf"))
                return
            raise Unauthenticated(f"{host} offers no way to authenticate that orlop knows")

    async def _fetch_token(self, host: str, scope: str, parameters: Mapping[str, str]) -> tuple[str, float]:
        realm, service = parameters["realm"], parameters.get("service", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Unauthenticated(f"{host} names the token server {realm!r}, which is no URL")
        scopes = sorted({*scope.split(), *parameters.get("scope", "").split()})
        credentials = self._credentials.get(host)
        try:
            response = await self._request_token(host, realm, service, scopes, credentials)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            text = str(error) or type(error).__name__
            raise Unavailable(f"the token server {parts.netloc} of {host}: {text}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise Unavailable(
                f"the token server {parts.netloc} of {host} answered {response.status_code}", hint="try again later"
            )
        if response.status_code != 200:
            raise Unauthenticated(
                f"the token server {parts.netloc} of {host} answered {response.status_code}",
                hint="check the credentials" if credentials else "use --user name:password",
            )
        try:
            token = msgspec.json.decode(response.content[:_MAX_TOKEN_BYTES], type=_Token)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unauthenticated(f"the token server of {host} sent no token: {error}") from None
        text = token.access_token or token.token
        if not text:
            raise Unauthenticated(f"the token server of {host} sent no token")
        life = max(1.0, token.expires_in - _EXPIRY_SLACK_S) if token.expires_in > 0 else float("inf")
        return f"Bearer {text}", trio.current_time() + life

    async def _request_token(
        self, host: str, realm: str, service: str, scopes: list[str], credentials: Credentials | None
    ) -> httpx.Response:
        asked = httpx.URL(realm).copy_merge_params({"service": service, "scope": scopes})
        headers = list(self._configured.get(host, ()))
        if credentials is None:
            return await self._client.get(asked, headers=headers)
        form = {"service": service, "client_id": _CLIENT_ID, "scope": " ".join(scopes)}
        if credentials.user:
            form |= {"grant_type": "password", "username": credentials.user, "password": credentials.secret}
        else:
            form |= {"grant_type": "refresh_token", "refresh_token": credentials.secret}
        response = await self._client.post(realm, data=form, headers=headers)
        if credentials.user and response.status_code in (400, 401, 404, 405):
            basic = httpx.BasicAuth(credentials.user, credentials.secret)
            response = await self._client.get(asked, headers=headers, auth=basic)
        return response
