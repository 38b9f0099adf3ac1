"""How well a search box answers what vectors alone do not: codes, brands, typing errors, exclusions, prices, nonsense.

    python benchmarks/answering.py --model_name_or_path . --output_dir outputs/answering

The products are those of the sample catalogue, by their titles alone, each with a part number. About 300 queries are
drawn with a seed; each is asked by vectors alone (`exact_words=False, correct=False, understand=False, expand=False`)
and as searches are by default. Prints and writes `answering.json`.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModel, AutoProcessor

from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.records import Results
from acebert.sample_catalog.generate import SampleProduct, generate_products, make_judged_queries
from acebert.sample_catalog.vocabulary import BRANDS, COLOUR_WORDS, KINDS

PRODUCTS, EACH = 600, 40
ALONE = {"exact_words": False, "correct": False, "understand": False, "expand": False}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Measure = Callable[[Results], float]


@dataclass(frozen=True)
class Asked:
    """A query, its kind, and how good an answer to it is, from 0 to 1."""

    kind: str
    text: str
    measure: Measure


def part_number(product: SampleProduct) -> str:
    rng = np.random.default_rng([product.seed, product.id])
    letters = "".join(rng.choice(list(LETTERS.upper()), 3))
    return f"{letters[:2]}-{rng.integers(1000, 9999)}-{letters[2]}"


def share(fits: Callable[[dict[str, Any]], bool]) -> Measure:
    """The share of the best ten that fit; none where there are no hits."""
    return lambda results: float(np.mean([fits(hit.attributes) for hit in results])) if results else 0.0


def with_error(word: str, rng: np.random.Generator) -> str:
    """A word with a letter too few, too many, another, or two that changed places; never the first."""
    at = int(rng.integers(1, len(word) - 1))
    letter = str(rng.choice(list(LETTERS)))
    return (
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + letter + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )[int(rng.integers(4))]


def make_queries(products: Sequence[SampleProduct], seed: int = 0) -> list[Asked]:
    """Queries of each kind, the same for the same seed."""
    rng = np.random.default_rng(seed)
    asked = []
    for number, product in enumerate(rng.choice(np.array(products, dtype=object), EACH, replace=False)):
        code, product_id = part_number(product), product.id
        spelled = (code, code.lower(), code.replace("-", ""), code.replace("-", " "))[number % 4]
        asked.append(Asked("part number first", spelled, lambda found, i=product_id: float(found[0].id == i)))
    for brand in BRANDS:
        there = sum(product.brand == brand for product in products)
        measure = share(lambda attributes, b=brand: attributes["brand"] == b)
        if there >= 10:
            asked.append(Asked("brand, P@10", brand.lower(), measure))
    nouns = [(kind, noun) for kind, facts in KINDS.items() for noun in facts.nouns if noun.isalpha() and len(noun) > 4]
    for kind, noun in (nouns[int(i)] for i in rng.integers(len(nouns), size=EACH)):
        measure = share(lambda attributes, k=kind: attributes["articleType"] == k)
        asked.append(Asked("typing error, P@10 of the kind", with_error(noun, rng), measure))
    colours = [colour for colour in COLOUR_WORDS if " " not in colour]
    for i, (_, noun) in enumerate(nouns[int(i)] for i in rng.integers(len(nouns), size=EACH)):
        colour = str(rng.choice(colours))
        text = (f"{noun} not {colour.lower()}", f"{noun} -{colour.lower()}", f"{noun} without {colour.lower()}")[i % 3]
        measure = share(lambda attributes, c=colour: attributes["baseColour"] != c)
        asked.append(Asked("exclusion, share without it", text, measure))
    for i, (kind, noun) in enumerate(nouns[int(i)] for i in rng.integers(len(nouns), size=EACH)):
        low, high = (float(np.round(end)) for end in KINDS[kind].price)
        middle = round((low + high) / 2)
        text, fits = (
            (f"{noun} under {middle}", lambda price, m=middle: price < m),
            (f"{noun} over ${middle}", lambda price, m=middle: price > m),
            (f"{noun} {low:g}-{middle} €", lambda price, low=low, m=middle: low <= price <= m),
        )[i % 3]
        asked.append(Asked("price, share in it", text, share(lambda attributes, f=fits: f(attributes["price"]))))
    for _ in range(EACH):
        text = "".join(rng.choice(list(LETTERS), int(rng.integers(7, 12))))
        asked.append(Asked("nonsense, told that nothing fits", text, lambda found: float(found.nothing_fits)))
    for query in make_judged_queries(products, num_queries=60):
        relevant = set(query.relevant_ids)
        best = min(10, len(relevant))
        measure = lambda found, r=relevant, b=best: sum(hit.id in r for hit in found) / b  # noqa: E731
        asked.append(Asked("shopper query, capped recall@10", query.query, measure))
        asked.append(
            Asked("shopper query, not told that nothing fits", query.query, lambda f: float(not f.nothing_fits))
        )
    return asked


def make_catalog(model: Any, processor: Any, products: Sequence[SampleProduct], path: Path) -> ProductCatalog:
    columns = ("articleType", "baseColour", "pattern", "brand", "price")
    rows = [
        {"id": product.id, "title": product.productDisplayName, "mpn": part_number(product)}
        | {name: getattr(product, name) for name in columns}
        for product in products
    ]
    dataset = Dataset.from_list(rows)
    catalog = ProductCatalog.build(model, processor, dataset, path, image_column=None, sides=False, index="memory")
    assert catalog is not None, "there is one process"
    return catalog


def measure(catalog: ProductCatalog, asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Means by kind of query, of each way to search."""
    table: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(query.kind for query in asked):
        of_kind = [query for query in asked if query.kind == kind]
        table[kind] = {"queries": len(of_kind)}
        for name, options in (("vectors alone", ALONE), ("default", {})):
            values = [query.measure(catalog.search(query.text, **options)) for query in of_kind]
            table[kind][name] = round(float(np.mean(values)), 3)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model_name_or_path", default=".", help="Checkpoint: a folder or a Hub id.")
    parser.add_argument("--products", type=int, default=PRODUCTS)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/answering"))
    args = parser.parse_args(argv)
    source = str(Path(args.model_name_or_path).resolve()) if Path(args.model_name_or_path).is_dir() else None
    source = source or args.model_name_or_path
    model = AutoModel.from_pretrained(source, trust_remote_code=True, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    products = generate_products(args.products)
    with (
        tempfile.TemporaryDirectory() as folder,
        make_catalog(model, processor, products, Path(folder, "c")) as catalog,
    ):
        table = measure(catalog, make_queries(products))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "answering.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print("| kind | queries | vectors alone | default |\n| --- | --- | --- | --- |")
    for kind, row in table.items():
        print(f"| {kind} | {row['queries']} | {row['vectors alone']:.3f} | {row['default']:.3f} |")


if __name__ == "__main__":
    main()
