"""ACE-BERT: product search that sees the photo as well as it reads the title."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported at first use, so that drawing the sample catalogue, say, doesn't wait for torch.
_MODULES = {
    "AceBertConfig": "configuration_acebert",
    "AceBertForPreTraining": "modeling_acebert",
    "AceBertForRetrieval": "modeling_acebert",
    "AceBertImageProcessor": "image_processing_acebert",
    "AceBertModel": "modeling_acebert",
    "AceBertProcessor": "processing_acebert",
    "Encoder": "encoding.encoder",
    "Hit": "catalog.records",
    "OnnxAceBertModel": "encoding.onnx_model",
    "ProductCatalog": "catalog.product_catalog",
    "explain": "encoding.explain",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'acebert' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
