"""The real way to registries: TLS with the machine's authorities, and the proxies that the environment names."""

from __future__ import annotations

import ssl
import urllib.request

import httpx

from ..protocol.world import Tls

__all__ = ["http_transport"]

_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30)


def http_transport(tls: Tls) -> httpx.AsyncBaseTransport:
    """See Network.http."""
    return _Proxied(_ssl_context(tls))


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = httpx.create_ssl_context(verify=tls.verify, trust_env=False)
    if tls.verify:
        context.load_default_certs()
        for path in tls.ca:
            context.load_verify_locations(cafile=path)
    for certificate, key in tls.client:
        context.load_cert_chain(certificate, key or None)
    return context


class _Proxied(httpx.AsyncBaseTransport):
    """Straight to the host, or through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._proxies = {
            scheme: url if "://" in url else f"http://{url}" for scheme, url in urllib.request.getproxies().items()
        }
        self._ways: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._way(self._proxy_for(request.url)).handle_async_request(request)

    def _proxy_for(self, url: httpx.URL) -> str:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all", "")
        return "" if not proxy or urllib.request.proxy_bypass(url.netloc.decode()) else proxy

    def _way(self, proxy: str) -> httpx.AsyncHTTPTransport:
        way = self._ways.get(proxy)
        if way is None:
            way = self._ways[proxy] = httpx.AsyncHTTPTransport(
                verify=self._context, trust_env=False, limits=_LIMITS, proxy=proxy or None
            )
        return way

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()
