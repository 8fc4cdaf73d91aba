"""Connections to servers of strangers: the web only, and no waiting where there is no network."""

import re
import socket
import urllib.parse
import urllib.request
from queue import Empty, Queue
from threading import Thread

from sowa.errors import DataError
from sowa.wheels import PROBE_SECONDS, is_reachable

__all__ = ["Refused", "check_url", "connects", "opener", "shown_url"]


class Refused(Exception):
    """The server does not give this file; another one may."""


def shown_url(url: str) -> str:
    """The URL without a password and without the parameters that often are one."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def check_url(url: str) -> None:
    """DataError unless the URL is one that `opener` can open."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise DataError(f"'{url[:200]}': not a URL that can be fetched; give http, https or a file")
    if parts.username is not None:
        raise DataError(f"{shown_url(url)}: a name and password in the URL are not sent; fetch the file by hand")


def connects(url: str) -> bool:
    """Whether a connection can be made at all, known within PROBE_SECONDS.

    A server may take its time to answer; where a proxy is between, only its answer tells.
    """
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return is_reachable(url)
    answers: Queue[bool] = Queue()
    Thread(target=lambda: answers.put(_connect(host, port)), daemon=True).start()
    try:
        return answers.get(timeout=PROBE_SECONDS)
    except Empty:
        return False


def _connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except (OSError, UnicodeError):
        return False
    return True


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Only to the web, and never from an encrypted connection to an open one."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise Refused(f"redirected from {old} to {new}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """What opens http and https URLs, through the proxy the environment names, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SafeRedirects(),
    ):
        opener.add_handler(handler)
    return opener
