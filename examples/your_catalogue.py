"""Your own catalogue, from a CSV with photos to a search with filters.

python examples/your_catalogue.py --catalog products.csv --output_dir runs/mine [--max_train_steps 200]

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
parser.add_argument("--max_train_steps", default="50", help="training steps; a real catalogue wants hundreds")
args = parser.parse_args()
args.output_dir.mkdir(parents=True, exist_ok=True)

# 1. A table and its photos. Yours may have other columns: name them by --id_column, --title_column and --image_column.
if args.catalog is None:
    from acebert.sample_catalog.generate import draw_product, generate_products

    args.catalog = args.output_dir / "products.csv"
    with open(args.catalog, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "image", "kind", "colour"])
        for product in generate_products(80, seed=0):
            draw_product(product).save(args.output_dir / f"{product.id}.png")
            values = [f"{product.id}.png", product.articleType, product.baseColour]
            rows.writerow([product.id, product.productDisplayName, *values])


def acebert(command: str, *flags: str) -> None:
    """Runs `acebert <command>`."""
    subprocess.run([sys.executable, "-m", "acebert", command, *flags], check=True)


# 2. Train. There is no query log here, so queries are made of attributes by templates, and of titles.
catalogue = ["--dataset_name", str(args.catalog)]
model_folder, catalog_folder = str(args.output_dir / "model"), str(args.output_dir / "catalog")
acebert(
    "train", "--stage", "finetune", "--backbone", args.backbone, *catalogue,
    "--query_templates", "{colour} {kind}", "{kind}", "--max_train_steps", args.max_train_steps,
    "--per_device_batch_size", "32", "--max_num_patches", "36", "--output_dir", model_folder,
)  # fmt: skip

# 3. Encode the catalogue, and search it.
acebert("build-catalog", "--model_name_or_path", model_folder, *catalogue, "--output_dir", catalog_folder)
model = AutoModel.from_pretrained(model_folder, trust_remote_code=True, use_safetensors=True, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(model_folder, trust_remote_code=True)
with ProductCatalog.load(catalog_folder, model, processor) as catalog:
    for hit in catalog.search("red shoes", top_k=5):
        print(f"{hit.score:.2f} {hit.title} ({hit.attributes['colour']} {hit.attributes['kind']})")
