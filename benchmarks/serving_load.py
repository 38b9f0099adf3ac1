"""How quick the service stays while many search and one changes products.

    acebert serve build/my-catalog --workers 2 --model_name_or_path build/onnx    # with ACEBERT_WRITE_KEY=key
    python benchmarks/serving_load.py --url http://127.0.0.1:8000 --write_key key --rate 100 --seconds 600

Searches start at random times at the rate that is asked for, whether earlier ones have been answered or not, as
shoppers' do: a service that falls behind shows it as waiting time, which counts. The client takes its share of the
cores where it runs on the machine that serves.

`--make <folder>` makes a catalogue of as many products as `--products` says, of vectors drawn at random, to be served.
"""

import argparse
import asyncio
import os
import platform
import random
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

COLOURS = ("red", "blue", "black", "white", "green", "grey", "brown", "purple")
LOOKS = ("striped", "floral", "plain", "dotted", "checked", "leather", "cotton", "summer")
KINDS = ("t-shirt", "shirt", "dress", "shoes", "handbag", "watch", "wallet", "jacket", "backpack", "sandals")
PEOPLE = ("for men", "for women", "for girls", "for boys")
QUERIES = [" ".join(words) for words in product(COLOURS, LOOKS, KINDS, PEOPLE)]
FILTERED = 0.2  # share of searches with a filter


@dataclass
class Timings:
    """Seconds that searches and changes took, and what went wrong."""

    searches: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def post(http: ClientSession, path: str, body: dict, times: list[float], errors: list[str]) -> None:
    start = time.perf_counter()
    try:
        async with http.post(path, json=body) as answer:
            content = await answer.json()
            if answer.status != 200:
                errors.append(f"{path}: {answer.status} {content}")
                return
    except (ClientError, TimeoutError) as error:
        errors.append(f"{path}: {error!r}")
        return
    times.append(time.perf_counter() - start)


async def search(http: ClientSession, rate: float, until: float, timings: Timings) -> None:
    """Starts searches at random times, `rate` a second on average."""
    chance, running, due = random.Random(0), set(), time.perf_counter()
    while (due := due + chance.expovariate(rate)) < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = {"text": chance.choice(QUERIES), "top_k": 10}
        if chance.random() < FILTERED:
            body["filters"] = {"colour": chance.choice(COLOURS)}
        task = asyncio.create_task(post(http, "/v1/search", body, timings.searches, timings.errors))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def change(http: ClientSession, pause: float, until: float, timings: Timings) -> None:
    """Replaces one product after another."""
    chance = random.Random(1)
    while time.perf_counter() < until:
        new = {
            "id": chance.randrange(10_000),
            "title": chance.choice(QUERIES),
            "attributes": {"colour": chance.choice(COLOURS)},
        }
        await post(http, "/v1/products/upsert", {"products": [new]}, timings.changes, timings.errors)
        await asyncio.sleep(pause)


async def measure(url: str, key: str | None, rate: float, pause: float, seconds: float) -> Timings:
    timings, until = Timings(), time.perf_counter() + seconds
    headers = {"X-API-Key": key} if key else {}
    async with ClientSession(url, headers=headers, connector=TCPConnector(limit=0), timeout=ClientTimeout(30)) as http:
        work = [search(http, rate, until, timings)]
        if key:
            work.append(change(http, pause, until, timings))
        await asyncio.gather(*work)
    return timings


def make(folder: Path, products: int, model: str) -> None:
    """Writes a catalogue of products with titles and colours, without photos, and with vectors drawn at random."""
    # Here, because only this needs the package: the load may come from another machine.
    from transformers import AutoModel, AutoProcessor

    from acebert.catalog.store import (
        PART_ROWS,
        Products,
        ProductStore,
        Settings,
        part_path,
        products_folder,
        write_table,
    )
    from acebert.encoding.encoder import Encoder

    options = {"trust_remote_code": True}
    encoder = Encoder(
        AutoModel.from_pretrained(model, use_safetensors=True, **options),
        AutoProcessor.from_pretrained(model, **options),
    )
    settings = Settings(encoder.describe(), encoder.dim, "integer", {"colour": "string"}, True, 0, "memory")
    numbers, chance = np.random.default_rng(0), random.Random(0)
    place = products_folder(folder, 0)
    place.mkdir(parents=True)
    for part, start in enumerate(range(0, products, PART_ROWS)):
        ids = list(range(start, min(start + PART_ROWS, products)))
        titles = [chance.choice(QUERIES) for _ in ids]
        vectors = {name: numbers.normal(size=(len(ids), encoder.dim)).astype(np.float32) for name in settings.vectors}
        vectors = {name: array / np.linalg.norm(array, axis=1, keepdims=True) for name, array in vectors.items()}
        colours = [title.split()[0] for title in titles]
        table = Products(ids, titles, [[]] * len(ids), {"colour": colours}, vectors).to_table(settings)
        write_table(table, part_path(place, part))
    ProductStore.create(folder, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the running service")
    parser.add_argument("--write_key", help="for changes; without it nothing is changed")
    parser.add_argument("--rate", type=float, default=100, help="searches a second")
    parser.add_argument("--change_pause", type=float, default=0.5, help="seconds between two changes")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--make", type=Path, help="make a catalogue here, and measure nothing")
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--model_name_or_path", default=".", help="checkpoint that will serve the catalogue made")
    args = parser.parse_args()
    if args.make:
        make(args.make, args.products, args.model_name_or_path)
        return
    load = os.getloadavg()[0]
    start = time.perf_counter()
    timings = asyncio.run(measure(args.url, args.write_key, args.rate, args.change_pause, args.seconds))
    took = time.perf_counter() - start
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, load {load:.1f} before the start; {args.seconds:g} s")
    for name, times in (("searches", timings.searches), ("changes", timings.changes)):
        if times:
            median, p95, p99 = np.percentile(times, [50, 95, 99]) * 1000
            print(
                f"{len(times)} {name}, {len(times) / took:.1f} a second: median {median:.0f} ms, p95 {p95:.0f} ms, "
                f"p99 {p99:.0f} ms, longest {max(times) * 1000:.0f} ms"
            )
    print(f"{len(timings.errors)} errors" + "".join(f"\n  {error[:200]}" for error in timings.errors[:5]))


if __name__ == "__main__":
    main()
