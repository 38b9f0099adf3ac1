"""Your own catalogue, from a CSV with photos to a search with filters.

python examples/your_catalogue.py --catalog products.csv --output_dir runs/mine [--max_steps 200]

Without --catalog it draws a small shop, so that you can see the whole way first.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from acebert import ProductCatalog

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--catalog", type=Path, help="CSV with the columns id, title, image (a path), kind, colour")
parser.add_argument("--backbone", default="sentence-transformers/all-MiniLM-L6-v2", help="text encoder to start from")
parser.add_argument("--output_dir", type=Path, default=Path("runs/your-catalogue"), help="where everything goes")
parser.add_argument("--max_steps", default="50", help="training steps; a real catalogue wants hundreds")
args = parser.parse_args()
args.output_dir.mkdir(parents=True, exist_ok=True)

# 1. A table and its photos. Yours has other columns: name them by --id_column, --title_column and --image_column.
if args.catalog is None:
    from acebert.sample_catalog import draw_product, generate_products

    args.catalog = args.output_dir / "products.csv"
    with open(args.catalog, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "image", "kind", "colour"])
        for product in generate_products(120, seed=0):
            draw_product(product).save(args.output_dir / f"{product['id']}.png")
            kind, colour = product["articleType"], product["baseColour"]
            rows.writerow([product["id"], product["productDisplayName"], f"{product['id']}.png", kind, colour])

# 2. Train. There is no query log here, so that queries are made of attributes by templates, and of titles.
command = [sys.executable, "-m", "acebert", "train", "--stage", "finetune", "--backbone", args.backbone]
command += ["--dataset_name", str(args.catalog), "--query_templates", "{colour} {kind}", "{kind}"]
command += [
    "--max_steps",
    args.max_steps,
    "--per_device_batch_size",
    "32",
    "--output_dir",
    str(args.output_dir / "model"),
]
subprocess.run(command, check=True)

# 3. Encode the catalogue, and search it.
folder = str(args.output_dir / "model")
model = AutoModel.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with ProductCatalog.build(model, processor, str(args.catalog), args.output_dir / "catalog") as catalog:
    for hit in catalog.search("red shoes", top_k=5, filters={"colour": ["Red", "Maroon"]}):
        print(f"{hit.score:.2f} {hit.title} ({hit.attributes['kind']}, {hit.attributes['colour']})")
