"""What a user does with saved folders, in one environment of `matrix.py`, whose libraries come first on the path.

    python use_folders.py LIBRARIES TARGET [--save] FOLDER ...

Each folder is loaded as remote code, gives vectors and a gradient, and with `--save` is saved again. `TARGET/<number>`
gets `vectors.safetensors` and `saved`.
"""

import sys

sys.path.insert(0, sys.argv[1])

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor

TEXTS = ["red striped shirt", "a table lamp with a very long arm", "blue"]


def photo(height: int, width: int, seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def use(source: str, target: Path, save: bool) -> None:
    model = AutoModel.from_pretrained(source, trust_remote_code=True, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    queries = processor(text=TEXTS, return_tensors="pt")
    photos = [photo(60, 40, 0), None, photo(33, 90, 1)]
    products = processor(text=[None, *TEXTS[:2]], images=photos, return_tensors="pt")
    several = processor(text=[None, *TEXTS[:2]], images=[photos, None, photos[:1]], return_tensors="pt")
    with torch.no_grad():
        vectors = {
            "query": model.get_text_features(**queries).pooler_output,
            "product": model.get_product_features(**products).pooler_output,
            "several": model.get_product_features(**several).pooler_output,
            "image": model.get_image_features(**processor(images=photos[::2], return_tensors="pt")).pooler_output,
        }
    target.mkdir(parents=True)
    save_file(vectors, target / "vectors.safetensors")
    if save:
        model.save_pretrained(target / "saved")
        processor.save_pretrained(target / "saved")
    asked = {f"query_{name}": queries[name] for name in ("input_ids", "attention_mask")}
    model.train()(**asked, **products, return_loss=True).loss.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing, f"{source}: no gradient for {missing}"


if __name__ == "__main__":
    save = "--save" in sys.argv
    for number, folder in enumerate(argument for argument in sys.argv[3:] if argument != "--save"):
        use(folder, Path(sys.argv[2], str(number)), save)
