"""How quick the Space stays while many people search it at once.

    python space/app.py --model_name_or_path . --catalog build/sample-catalog --preset sample --port 7860
    python benchmarks/space_load.py --url http://127.0.0.1:7860

Each client does what the page in a browser does: it sends a search through the queue, waits for the results, fetches
those of their photos that it doesn't have yet, and looks at them for a while. Queries hardly ever repeat. The clients
take their share of the cores where they run on the machine that serves.
"""

import argparse
import asyncio
import html
import json
import os
import platform
import random
import re
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product

import numpy as np
from aiohttp import ClientError, ClientSession, TCPConnector

CONNECTIONS = 6  # that a browser keeps to a host
KEEPALIVE = 3  # seconds; the server closes idle connections after 5, and a browser would just ask again

QUERIES = [
    " ".join(words)
    for words in product(
        ("red", "blue", "black", "white", "green", "grey", "brown", "purple"),
        ("striped", "floral", "plain", "dotted", "checked", "leather", "cotton", "summer"),
        ("t-shirt", "shirt", "dress", "shoes", "handbag", "watch", "wallet", "jacket", "backpack", "sandals"),
        ("for men", "for women", "for girls", "for boys"),
    )
]


@dataclass
class Timings:
    """Seconds that searches and photos took, and what went wrong."""

    searches: list[float] = field(default_factory=list)
    photos: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def search(http: ClientSession, function: int, inputs: list, session: str) -> str:
    """One search through the queue, as the page sends it; returns the results as HTML."""
    event = {"fn_index": function, "data": inputs, "session_hash": session}
    async with http.post("gradio_api/queue/join", json=event):
        pass
    async with http.get("gradio_api/queue/data", params={"session_hash": session}) as answer:
        async for line in answer.content:
            message = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            if message.get("msg") == "process_completed":
                if not message["success"]:
                    raise RuntimeError(message["output"])
                return next(part for part in message["output"]["data"] if isinstance(part, str) and "<section" in part)
    raise RuntimeError("the stream ended without an answer")


async def shop(url: str, number: int, page: dict, until: float, pause: float, timings: Timings) -> None:
    """One person with a browser of their own, until the time is up."""
    chance = random.Random()
    function = next(item for item in page["dependencies"] if item["api_name"] == "start_over")
    defaults = {part["id"]: part["props"].get("value") for part in page["components"]}
    had: set[str] = set()
    async with ClientSession(
        url, connector=TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEPALIVE), raise_for_status=True
    ) as http:
        while True:
            await asyncio.sleep(pause * 2 * chance.random())
            if time.perf_counter() >= until:
                return
            inputs = [chance.choice(QUERIES), *(defaults[part] for part in function["inputs"][1:])]
            start = time.perf_counter()
            try:
                found = await search(http, function["id"], inputs, f"person{number}")
                timings.searches.append(time.perf_counter() - start)
                addresses = {html.unescape(address) for address in re.findall(r'src="(photo\?[^"]+)"', found)}
                if not addresses:
                    raise RuntimeError(f"no products: {found[:200]}")
                await asyncio.gather(*(fetch(http, address, timings) for address in addresses - had))
                had |= addresses
            except (ClientError, RuntimeError) as error:
                timings.errors.append(repr(error))


async def fetch(http: ClientSession, address: str, timings: Timings) -> None:
    start = time.perf_counter()
    async with http.get(address) as answer:
        await answer.read()
    timings.photos.append(time.perf_counter() - start)


async def measure(url: str, clients: int, seconds: float, pause: float) -> Timings:
    timings = Timings()
    async with ClientSession(url, raise_for_status=True) as http, http.get("config") as answer:
        page = await answer.json()
    until = time.perf_counter() + seconds
    await asyncio.gather(*(shop(url, number, page, until, pause, timings) for number in range(clients)))
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:7860/", help="of the running Space")
    parser.add_argument("--clients", type=int, default=20, help="people at once")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--pause", type=float, default=3, help="mean seconds between seeing results and searching again"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    timings = asyncio.run(measure(args.url, args.clients, args.seconds, args.pause))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {version(name)}" for name in ("gradio", "torch", "transformers"))
    print(f"{platform.machine()}, {cores} cores, load {load:.1f} before the start")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"{args.clients} people for {args.seconds:g} s, pausing {args.pause:g} s on average")
    for name, times in (("searches", timings.searches), ("photos", timings.photos)):
        if times:
            median, p95 = np.percentile(times, [50, 95])
            print(f"{len(times)} {name}: median {median:.3f} s, p95 {p95:.3f} s, longest {max(times):.3f} s")
    print(f"{len(timings.errors)} errors" + "".join(f"\n  {error}" for error in timings.errors[:5]))


if __name__ == "__main__":
    main()
