"""Published numbers of other models, to stand beside those measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Leaderboard:
    """A public leaderboard.

    Args:
        scores: task to model to metric to what is published; what isn't known here is left out.
        caveat: what to know before one compares, for the report.
    """

    scores: dict[str, dict[str, dict[str, float]]]
    caveat: str


# marqo-ai/marqo-FashionCLIP, LEADERBOARD.md, 2024-08-09.
KAGL_SCORES = {
    "text-to-image": {
        "Marqo-FashionSigLIP": {"recall@1": 0.179, "recall@10": 0.489, "mrr@10": 0.293},
        "ViT-B-16-SigLIP-webli": {"recall@1": 0.169, "recall@10": 0.468, "mrr@10": 0.272},
        "Marqo-FashionCLIP": {"recall@1": 0.159, "recall@10": 0.446, "mrr@10": 0.265},
        "ViT-B-16-laion2b": {"recall@1": 0.155, "recall@10": 0.435, "mrr@10": 0.259},
        "FashionCLIP2.0": {"recall@1": 0.122, "recall@10": 0.404, "mrr@10": 0.217},
        "OpenFashionCLIP": {"recall@1": 0.091, "recall@10": 0.325, "mrr@10": 0.170},
    },
    "masterCategory-to-product": {
        "Marqo-FashionSigLIP": {"AvgP": 0.629, "precision@10": 0.686},
        "ViT-B-16-SigLIP-webli": {"AvgP": 0.707, "precision@10": 0.700},
        "Marqo-FashionCLIP": {"AvgP": 0.643, "precision@10": 0.571},
        "ViT-B-16-laion2b": {"AvgP": 0.550, "precision@10": 0.529},
        "FashionCLIP2.0": {"AvgP": 0.700, "precision@10": 0.686},
        "OpenFashionCLIP": {"AvgP": 0.493, "precision@10": 0.557},
    },
    "subCategory-to-product": {
        "Marqo-FashionSigLIP": {"AvgP": 0.699, "precision@10": 0.687},
        "ViT-B-16-SigLIP-webli": {"AvgP": 0.667, "precision@10": 0.644},
        "Marqo-FashionCLIP": {"AvgP": 0.640, "precision@10": 0.613},
        "ViT-B-16-laion2b": {"AvgP": 0.598, "precision@10": 0.573},
        "FashionCLIP2.0": {"AvgP": 0.586, "precision@10": 0.571},
        "OpenFashionCLIP": {"AvgP": 0.479, "precision@10": 0.491},
    },
    "articleType-to-product": {
        "Marqo-FashionCLIP": {"precision@1": 0.725, "precision@10": 0.613, "mrr@10": 0.772},
        "Marqo-FashionSigLIP": {"precision@10": 0.629},
    },
    "baseColour-to-product": {
        "Marqo-FashionSigLIP": {"precision@1": 0.587, "precision@10": 0.502, "mrr@10": 0.664}
    },
    "usage-to-product": {
        "ViT-B-16-SigLIP-webli": {"precision@1": 0.500, "precision@10": 0.388, "mrr@10": 0.500}
    },
    "season-to-product": {"Marqo-FashionSigLIP": {"precision@1": 0.500, "precision@10": 0.350, "mrr@10": 0.500}},
}  # fmt: skip
KAGL_CAVEAT = (
    "Published rows are Marqo's KAGL leaderboard (2024-08-09): zero-shot models of 150 to 203 million parameters on "
    "full-size photos (up to 1800x2400), 44,434 products, 2,000 text-to-image queries. They are no like-for-like "
    "comparison: a model trained on a split of this catalogue is in-domain, photos of 60x80 pixels show it far less, "
    "and the products and queries measured here are not all of the leaderboard's."
)

LEADERBOARDS = {"kagl": Leaderboard(KAGL_SCORES, KAGL_CAVEAT)}
