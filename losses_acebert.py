"""The losses of ACE-BERT as pure functions of vectors and logits, and which pairs must not count as negatives."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# ----------------------------------------------------------------------------------------------------------------------
# Losses: pure functions of vectors. Row i of `query_embeds` belongs to row i of `product_embeds`; further products may
# follow (hard negatives). `positives` (queries, products) marks the pairs that must not count as negatives.
# ----------------------------------------------------------------------------------------------------------------------


def find_positives(
    product_ids: torch.Tensor | None = None,
    query_ids: torch.Tensor | None = None,
    product_attributes: torch.Tensor | None = None,
    query_attributes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Marks every pair that is known to match: same row, same product, same query, or attributes that answer the query.

    Args:
        product_ids: (products,) integers. Rows that share one are the same product.
        query_ids: (queries,) integers. Rows that share one are the same query, so each answers the other.
        product_attributes: (products, attributes) integer codes, -1 where the product has no value.
        query_attributes: (queries, attributes) integer codes, -1 where the query doesn't ask. A product answers a query
            if it has every code that the query asks for; a query that asks for nothing is answered by its own row
            alone.

    Returns:
        (queries, products) booleans.
    """
    queries = next((x.shape[0] for x in (query_ids, query_attributes, product_ids) if x is not None), None)
    products = next((x.shape[0] for x in (product_ids, product_attributes, query_ids) if x is not None), None)
    if queries is None or products is None:
        raise ValueError("`find_positives` needs ids or attributes of queries and products.")
    device = next(x.device for x in (product_ids, query_ids, product_attributes) if x is not None)
    positives = torch.eye(queries, products, dtype=torch.bool, device=device)
    if product_ids is not None:
        positives = positives | (product_ids[:queries, None] == product_ids[None, :])
    if query_ids is not None:
        positives = positives | F.pad(query_ids[:, None] == query_ids[None, :], (0, products - queries))
    if query_attributes is not None and product_attributes is not None:
        asked = query_attributes[:, None, :] >= 0
        answered = (query_attributes[:, None, :] == product_attributes[None, :, :]) | ~asked
        positives = positives | (answered.all(-1) & asked.any(-1))
    return positives


def info_nce_loss(
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    scale: torch.Tensor | float,
    positives: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) both ways, as in CLIP (arXiv 2103.00020, section 2.3).

    With weights it is the weighted cross entropy of generalised contrastive learning (Zhu, Jung and Clark 2024, arXiv
    2404.08535): a pair that matches better counts more.

    Args:
        query_embeds: (n, width), unit length.
        product_embeds: (m, width) with m >= n, unit length.
        scale: inverse temperature.
        positives: (n, m) booleans; off-diagonal ones are left out of the denominator.
        weights: (n,) positive: what each row counts in both means, in relation to the others. Equal weights give the
            loss without weights, to the bit on a CPU.

    Returns:
        Scalar. With vectors that are all alike it is (log m + log n) / 2, whatever the weights.
    """
    n = query_embeds.shape[0]
    logits = scale * query_embeds @ product_embeds.t()  # (n, m)
    if positives is not None:
        own = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(positives & ~own, float("-inf"))
    target = torch.arange(n, device=logits.device)
    # Each row is a class of its own, so the weights of the classes are those of the rows.
    by_product = None if weights is None else (weights / weights.max()).to(logits.dtype)
    by_query = None if by_product is None else F.pad(by_product, (0, logits.shape[1] - n))
    rows = F.cross_entropy(logits, target, weight=by_query)
    return (rows + F.cross_entropy(logits[:, :n].t(), target, weight=by_product)) / 2


def sigmoid_loss(
    query_embeds: torch.Tensor,
    product_embeds: torch.Tensor,
    scale: torch.Tensor | float,
    bias: torch.Tensor | float,
    positives: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pairwise sigmoid loss (Zhai et al. 2023, arXiv 2303.15343, algorithm 1): a sum over pairs, a mean over queries.

    Arguments as in [`info_nce_loss`], and `bias`, which is added to the logits. Off-diagonal positives count neither
    way.
    """
    logits = scale * query_embeds @ product_embeds.t() + bias  # (n, m)
    own = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    losses = -F.logsigmoid(torch.where(own, logits, -logits))
    if positives is not None:
        losses = losses.masked_fill(positives & ~own, 0.0)
    if weights is None:
        return losses.sum() / query_embeds.shape[0]
    weights = (weights / weights.max()).to(losses.dtype)
    return (weights[:, None] * losses).sum() / weights.sum()


def domain_loss(
    query_logits: torch.Tensor, product_logits: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the domain classifier (Ganin et al. 2016, arXiv 1505.07818), each side weighing one half.

    Args:
        query_logits: (n,), the classifier's logit that each query vector is a product's.
        product_logits: (m,), likewise for the product vectors.
        label_smoothing: share of the label that goes to the other side.

    Returns:
        The loss, ln 2 for a classifier that can't tell; and its accuracy, 0.5 likewise.
    """
    high, low = 1 - label_smoothing / 2, label_smoothing / 2
    loss = F.binary_cross_entropy_with_logits(query_logits, torch.full_like(query_logits, low))
    loss = loss + F.binary_cross_entropy_with_logits(product_logits, torch.full_like(product_logits, high))
    # A logit of exactly 0 tells nothing, so it counts half.
    right = ((-query_logits).sign().mean() + product_logits.sign().mean()) / 4 + 0.5
    return loss / 2, right.detach()


def anchor_loss(embeds: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How far vectors have moved from where a frozen model has them: one minus the cosine, mean over the rows.

    On texts that no training pair holds it keeps what an encoder knows (docs/training.md); the frozen model's weights
    are where the encoder's own began. Ours; close to feature distillation (Romero et al. 2015, arXiv 1412.6550).

    Args:
        embeds: (rows, dim), of any length.
        reference: (rows, dim), of any length, without gradient.

    Returns:
        A scalar in [0, 2].
    """
    return (1 - F.cosine_similarity(embeds.float(), reference.float(), dim=-1)).mean()


def reverse_gradient(x: torch.Tensor, strength: float | torch.Tensor) -> torch.Tensor:
    """Gradient reversal (Ganin and Lempitsky 2015, arXiv 1409.7495): `x`, with minus `strength` times its gradient."""
    return (1 + strength) * x.detach() - strength * x


def modality_gap(query_embeds: torch.Tensor, product_embeds: torch.Tensor) -> torch.Tensor:
    """Distance between the means of the two sides' vectors (Liang et al. 2022, arXiv 2203.02053, section 2): 0 to 2."""
    return (query_embeds.mean(0) - product_embeds.mean(0)).norm()


def answer_loss(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Minus the logarithm of the answers' share of a softmax over all products, mean over the queries.

    MIL-NCE (Miech et al. 2020, arXiv 1912.06430, equation 1), with any number of answers: a query that thousands answer
    need not be near to all of them, as with a mean over answers, but has to have nothing else before them.

    Args:
        logits: (queries, products) scaled cosines.
        answers: (queries, products) booleans, at least one in each row.
    """
    return (logits.logsumexp(1) - logits.masked_fill(~answers, float("-inf")).logsumexp(1)).mean()


def matryoshka_answer_loss(
    query_embeds: torch.Tensor, products: Sequence[torch.Tensor], answers: torch.Tensor, scale: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """[`answer_loss`], mean over the widths (Kusupati et al. 2022, arXiv 2205.13147), and what is ranked first.

    Args:
        query_embeds: (queries, projection_dim).
        products: unit vectors by width, each (products, width), the whole ones first.
        answers: (queries, products) booleans.
        scale: inverse temperature.

    Returns:
        The loss, and (queries,) numbers of the products nearest to the whole vectors.
    """
    logits = [scale * F.normalize(query_embeds[:, : cut.shape[1]].float(), dim=-1) @ cut.t() for cut in products]
    return torch.stack([answer_loss(each, answers) for each in logits]).mean(), logits[0].argmax(1)
