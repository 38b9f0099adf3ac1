r"""Loads what `acebert encode` wrote into PostgreSQL with pgvector, and searches it.

pip install "psycopg[binary]" pgvector
acebert encode --catalog build/my-catalog --output_dir build/vectors
acebert export-query-encoder --output_dir build/query
python examples/load_pgvector.py build/vectors postgresql://localhost/shop
python examples/load_pgvector.py build/vectors postgresql://localhost/shop \
    --query "red dress" --query_encoder build/query
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.parquet as pq
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql

TYPES = {
    "string": "text",
    "integer": "int8",
    "number": "float8",
    "boolean": "bool",
    "strings": "text[]",
    "date": "timestamptz",
}
VECTORS = {"float32": ("vector", Vector), "float16": ("halfvec", HalfVector)}


def load(folder: Path, url: str, table: str = "products") -> int:
    """Makes the table anew from all files, in one transaction; returns the number of products."""
    contents = json.loads((folder / "vectors.json").read_text(encoding="utf-8"))
    if contents["precision"] not in VECTORS:
        raise SystemExit("pgvector has no vectors of int8: write them with --precision float16.")
    kind, _ = VECTORS[contents["precision"]]
    columns = {"id": TYPES[contents["id_type"]] + " PRIMARY KEY", "title": "text"}
    columns |= {name: TYPES[kind] for name, kind in contents["attributes"].items()}
    columns |= {name: f"{kind}({contents['dim']})" for name in contents["vectors"]}
    name = sql.Identifier(table)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        fields = [sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns.items()]
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(fields)))
        with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN WITH (FORMAT BINARY)").format(name)) as copy:
            copy.set_types([kind.split("(")[0].removesuffix(" PRIMARY KEY") for kind in columns.values()])
            for row in read_rows(folder, contents):
                copy.write_row([row[column] for column in columns])
        # Made after the rows are there, which takes a fraction of the time.
        index = "CREATE INDEX ON {} USING hnsw (product_vector {})"
        connection.execute(sql.SQL(index).format(name, sql.SQL(f"{kind}_cosine_ops")))
    return contents["products"]


def read_rows(folder: Path, contents: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The products of all Parquet files, with vectors as pgvector takes them."""
    _, make = VECTORS[contents["precision"]]
    for file in contents["files"]:
        for batch in pq.ParquetFile(folder / file).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                for name in contents["vectors"]:
                    row[name] = None if row[name] is None else make(row[name])
                yield row


def search(
    url: str, vector: np.ndarray, where: str = "true", values: tuple[Any, ...] = (), top_k: int = 10
) -> list[tuple[Any, ...]]:
    """(id, title, cosine) of the nearest products that meet an SQL condition, best first.

    Args:
        url: of the database.
        vector: (dim,) of the query.
        where: a condition with a %s for each of `values`. Write it yourself: never paste a shopper's words into it.
        values: what it compares with.
        top_k: products wanted.
    """
    with psycopg.connect(url) as connection:
        register_vector(connection)
        # Else a filter is applied to the graph's first 40 products alone (pgvector 0.8 and later).
        connection.execute("SET hnsw.iterative_scan = strict_order")
        query = sql.SQL(
            "SELECT id, title, 1 - (product_vector <=> %s) FROM products WHERE {} "
            "ORDER BY product_vector <=> %s LIMIT %s"
        ).format(sql.SQL(where))
        return connection.execute(query, (Vector(vector), *values, Vector(vector), top_k)).fetchall()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of `acebert encode`")
    parser.add_argument("url", help="of the database")
    parser.add_argument("--query", help="search instead of loading")
    parser.add_argument("--query_encoder", help="folder of `acebert export-query-encoder`")
    args = parser.parse_args()
    if args.query is None:
        print(f"{load(args.folder, args.url)} products are in the table products.")
        return
    from sentence_transformers import SentenceTransformer

    for product_id, title, score in search(args.url, SentenceTransformer(args.query_encoder).encode(args.query)):
        print(f"{score:.3f}  {product_id}  {title}")


if __name__ == "__main__":
    main()
