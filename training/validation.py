"""What validations measure."""

import torch


def capped_recall(scores: torch.Tensor, positives: torch.Tensor, k: int) -> torch.Tensor:
    """Recall@k of each query, where more than k positives count as k (as BEIR does, arXiv 2104.08663).

    Args:
        scores: (queries, products); what scores -inf isn't found.
        positives: (queries, products) booleans, at least one for each query.
        k: products that are found, at most.

    Returns:
        (queries,).
    """
    k = min(k, scores.shape[1])
    best = scores.topk(k, dim=1)
    found = positives.gather(1, best.indices) & (best.values > -torch.inf)
    return found.sum(1) / positives.sum(1).clamp(max=k)


def mean_recalls(recall: torch.Tensor, from_title: torch.Tensor) -> dict[str, float]:
    """Means of (queries,) recalls, apart for titles and for other queries, and the `score`: their mean."""
    parts = {"title_to_image_recall@10": recall[from_title], "query_to_product_recall@10": recall[~from_title]}
    metrics = {name: float(values.mean()) for name, values in parts.items() if len(values)}
    return metrics | {"score": sum(metrics.values()) / len(metrics)}
