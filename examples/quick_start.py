"""Load the checkpoint, encode products and queries, and rank.

python examples/quick_start.py [folder or Hub id]
"""

import sys

import torch
from PIL import Image, ImageDraw
from transformers import AutoModel, AutoProcessor

MODEL = sys.argv[1] if len(sys.argv) > 1 else "."


def draw_mug(colour: str) -> Image.Image:
    """A photo, for the example's sake: a mug on a white backdrop."""
    photo = Image.new("RGB", (240, 320), "white")
    draw = ImageDraw.Draw(photo)
    draw.rectangle((70, 120, 160, 230), fill=colour)
    draw.arc((145, 140, 195, 205), start=-90, end=90, fill=colour, width=14)
    return photo


model = AutoModel.from_pretrained(MODEL, trust_remote_code=True, use_safetensors=True, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(MODEL, trust_remote_code=True)

# A product has a title, a photo, or both; None stands for what is missing.
titles = ["Striped cotton t-shirt", "Mug, 300 ml", None, "Leather belt for men"]
photos = [None, draw_mug("navy"), draw_mug("crimson"), None]

with torch.no_grad():
    products = model.get_product_features(**processor(text=titles, images=photos, return_tensors="pt")).pooler_output
    for query in ["t-shirt with stripes", "something to drink coffee from", "men's belt"]:
        asked = model.get_text_features(**processor(text=[query], return_tensors="pt")).pooler_output
        scores = (asked @ products.T)[0]
        best = int(scores.argmax())
        print(f"{query}: {titles[best] or 'the product without a title'} ({scores[best]:.2f})")
