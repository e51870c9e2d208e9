"""All genes by name, as a configuration with some of them gives them."""

from __future__ import annotations

from typing import Any

from evocompress.evolve.config import genes_model

__all__ = ["configured_genes"]


def configured_genes(**genes: Any) -> dict[str, Any]:
    return dict(genes_model("classification").model_validate(genes))
