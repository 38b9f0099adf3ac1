"""What a user does with a folder, in one environment: load, encode, take a gradient, save, load again, encode again.

Run by `matrix.py` as a program: `load_and_save.py LIBRARIES TARGET SOURCE ...`. `LIBRARIES` is a folder that is first
on the path; of each source, `TARGET/<its number>` gets the vectors and `again`, the folder that was saved.
"""

import sys

sys.path.insert(0, sys.argv[1])

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor, __version__

TEXTS = ["red striped shirt", "a table lamp with a very long arm", "blue"]


def photo(height: int, width: int, seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def encode(source: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    model = AutoModel.from_pretrained(source, trust_remote_code=True, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    for name in ("text_config", "query_config"):
        assert getattr(model.config, name).model_type == "bert", name
    queries = processor(text=TEXTS, return_tensors="pt")
    photos = [photo(60, 40, 0), None, photo(33, 90, 1)]
    products = processor(text=[None, *TEXTS[:2]], images=photos, return_tensors="pt")
    pictures = processor(images=photos[::2], return_tensors="pt")
    with torch.no_grad():
        vectors = {
            "query": model.get_text_features(**queries).pooler_output,
            "product": model.get_product_features(**products).pooler_output,
            "image": model.get_image_features(**pictures).pooler_output,
        }
    asked = {f"query_{name}": queries[name] for name in ("input_ids", "attention_mask")}
    model.train()(**asked, **products, return_loss=True).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    return model, processor, vectors


def main() -> None:
    target = Path(sys.argv[2])
    for number, source in enumerate(sys.argv[3:]):
        folder = target / str(number)
        folder.mkdir(parents=True)
        model, processor, first = encode(source)
        model.save_pretrained(folder / "again")
        processor.save_pretrained(folder / "again")
        _, _, second = encode(str(folder / "again"))
        for name, vectors in first.items():
            assert torch.allclose(vectors, second[name], atol=1e-6), f"{name} differs after saving"
        save_file(first, folder / "vectors.safetensors")
    print(__version__)


if __name__ == "__main__":
    main()
