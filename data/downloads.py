"""Photos that a table names by web addresses, downloaded into a folder, within bounds, and only when asked for."""

import hashlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import httpx
from accelerate import PartialState
from tqdm.auto import tqdm

from acebert.data.notes import tell
from acebert.utils.files import atomic_write
from acebert.utils.words import cut

MAX_REDIRECTS = 5
THREADS = 8
READ_BYTES = 2**16  # at a time


@dataclass(frozen=True)
class PhotoDownloads:
    """Where photos are downloaded to, and within which bounds.

    A photo lies under the hash of its address, so a run that was stopped, and the next one, download the others alone.

    Args:
        folder: made if need be.
        hosts: that may be asked; any with a public address by default. One that is named may have a private one.
        max_bytes: of one photo.
        max_count: of the addresses of a table.
        max_seconds: for all of a table; a photo that isn't there by then is listed as not downloaded.
        timeout: of one answer, in seconds.
    """

    folder: str | os.PathLike
    hosts: Sequence[str] = ()
    max_bytes: int = 20 * 2**20
    max_count: int = 1_000_000
    max_seconds: float = 24 * 3600.0
    timeout: float = 30.0

    def fetch(self, addresses: Iterable[str]) -> dict[str, str | ValueError]:
        """The file of each address, or why there is none. Failures are counted, and listed in `failed.txt`.

        Where several processes call this, the main one goes first, and the others find its files.

        Raises:
            ValueError: for more addresses than `max_count`.
        """
        wanted = list(dict.fromkeys(addresses))
        if len(wanted) > self.max_count:
            raise ValueError(
                f"{len(wanted):,} photos would be downloaded, and at most {self.max_count:,} are: give a part of them."
            )
        deadline = time.monotonic() + self.max_seconds
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with (
            httpx.Client(timeout=self.timeout, trust_env=False, headers={"User-Agent": "acebert"}) as client,
            ThreadPoolExecutor(THREADS) as pool,
        ):
            found = pool.map(lambda address: self._fetch(client, address, deadline), wanted)
            bar = tqdm(found, total=len(wanted), unit="photo", disable=not PartialState().is_main_process)
            places = dict(zip(wanted, bar, strict=True))
        failed = {address: place for address, place in places.items() if isinstance(place, ValueError)}
        if failed:
            file = Path(self.folder, "failed.txt")
            atomic_write(file, "".join(f"{address}\t{reason}\n" for address, reason in failed.items()))
            address, reason = next(iter(failed.items()))
            tell(
                f"{len(failed):,} of {len(wanted):,} photos could not be downloaded, listed in {file}; the first, "
                f"{cut(address)}: {reason}."
            )
        return places

    def _fetch(self, client: httpx.Client, address: str, deadline: float) -> str | ValueError:
        file = Path(self.folder, hashlib.sha256(address.encode(errors="replace")).hexdigest()[:32])
        if file.exists():
            return str(file)
        try:
            data = self._download(client, address, deadline)
        except ValueError as error:
            return error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return ValueError(f"it can't be downloaded: {cut(error) or type(error).__name__}")
        atomic_write(file, data)
        return str(file)

    def _download(self, client: httpx.Client, address: str, deadline: float) -> bytes:
        url = httpx.URL("https:" + address if address.startswith("//") else address)
        for _ in range(MAX_REDIRECTS + 1):
            if time.monotonic() > deadline:
                raise ValueError(f"the {self.max_seconds:g} seconds for all photos are over")
            # The address that was checked is the one that is asked: a name could lead elsewhere a moment later.
            asked = url.copy_with(host=self._check_host(url))
            headers, extensions = {"Host": url.netloc.decode()}, {"sni_hostname": url.host}
            with client.stream("GET", asked, headers=headers, extensions=extensions) as response:
                if response.has_redirect_location:
                    url = httpx.URL(urljoin(str(url), response.headers["location"]))
                    continue
                if response.status_code != 200:
                    raise ValueError(f"the server answers {response.status_code}")
                return self._read(response, deadline)
        raise ValueError(f"it is redirected more than {MAX_REDIRECTS} times")

    def _check_host(self, url: httpx.URL) -> str:
        """The IP address of a host that may be asked."""
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{cut(url)} is no address of the web")
        if self.hosts and url.host not in self.hosts:
            raise ValueError(f"the host {cut(url.host)} isn't among those that may be asked")
        try:
            found = socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"the host {cut(url.host)} can't be found: {error}") from None
        places = [str(place[4][0]) for place in found]
        if url.host not in self.hosts and not all(map(_is_public, places)):
            raise ValueError(f"the host {cut(url.host)} has a private address, which is refused")
        return places[0]

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes(READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > self.max_bytes:
                raise ValueError(f"it is larger than {self.max_bytes / 2**20:g} MB")
            if time.monotonic() > deadline:
                raise ValueError(f"the {self.max_seconds:g} seconds for all photos are over")
        return b"".join(parts)


def _is_public(place: str) -> bool:
    address = ipaddress.ip_address(place)
    return (getattr(address, "ipv4_mapped", None) or address).is_global
