"""A searchable, changeable catalogue of products: [`ProductCatalog`], what its searches return, and its errors."""

import importlib
from typing import Any

# Imported at first use: the child that merges a catalogue's files imports this package too, and needs no model.
_MODULES = {
    "CatalogBusyError": "live_index",
    "ChangeKeptError": "live_index",
    "Hit": "records",
    "IndexUnavailableError": "indexes.connection",
    "Product": "records",
    "ProductCatalog": "product_catalog",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
