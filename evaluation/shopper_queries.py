"""Synthetic shopper queries: several attributes at once, in the catalogue's words, in synonyms, and with words hidden.

They are made from the catalogue's own attributes, which is what the template queries of training are made from.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from acebert.data.corpus import Corpus
from acebert.data.query_templates import QueryTemplates
from acebert.evaluation.queries import read_json
from acebert.evaluation.tasks import Task, length_slice
from acebert.evaluation.training_texts import TrainingTexts
from acebert.utils.tokenization import WORD, tokenize

SHOPPER_METRICS = ("ndcg@10", "precision@1", "precision@10", "recall_cap@10", "mrr@10")


class Synonyms:
    """Words that shoppers use for attribute values.

    A word that is listed under several values of a column asks for any of them: "kids" for boys and for girls.

    Args:
        words: {column: {value: [word, ...]}}; empty where none are known.
    """

    def __init__(self, words: Mapping[str, Mapping[str, Sequence[str]]]):
        self.words = words
        self.values: dict[str, dict[str, set[str]]] = {}
        for column, listed in words.items():
            meanings = self.values.setdefault(column, {})
            for value, synonyms in listed.items():
                for word in synonyms:
                    meanings.setdefault(word, set()).add(value)

    @classmethod
    def read(cls, path: str, corpus: Corpus) -> "Synonyms":
        """Reads a JSON file; values that no product of the catalogue has are allowed.

        Raises:
            ValueError: if the file is of another form, names a column that the queries don't ask for, or a synonym
                consists of words of the catalogue's own values, so that it is none.
        """
        words = read_json(path, "{column: {value: [word, ...]}}")
        form = "expected {column: {value: [word, ...]}}."
        if not isinstance(words, dict) or not words:
            raise ValueError(f"{path} holds no synonyms; {form}")
        own = {token for column in words for value in corpus.members.get(column, ()) for token in tokenize(value)}
        for column, listed in words.items():
            if not isinstance(listed, dict):
                raise ValueError(f"{path}: column {column!r} holds {listed!r}; {form}")
            for value, synonyms in listed.items():
                if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
                    raise ValueError(f"{path}: {column} {value!r} has {synonyms!r}; {form}")
                for word in synonyms:
                    if own.issuperset(tokenize(word)):
                        raise ValueError(
                            f"{path}: {word!r}, for {column} {value!r}, consists of words of the catalogue's own "
                            "values, which training queries say: choose a word that is new, or leave it out."
                        )
        if not set(words) & set(corpus.attributes):
            raise ValueError(
                f"{path} has the columns {sorted(words)}, the catalogue's attributes are {sorted(corpus.attributes)}: "
                "give --synonyms_file for yours."
            )
        return cls(words)


@dataclass(frozen=True)
class ShopperQuery:
    """A query in several attributes, in two wordings.

    Args:
        values: column to the value that the plain wording asks for.
        words: column to the synonym in the other wording, where there is one.
        plain, synonym: the two wordings.
    """

    values: dict[str, str]
    words: dict[str, str]
    plain: str
    synonym: str


def make_shopper_queries(
    corpus: Corpus,
    rows: np.ndarray,
    templates: QueryTemplates,
    synonyms: Synonyms,
    num_queries: int,
    min_relevant: int,
    seed: int,
) -> list[ShopperQuery]:
    """Draws combinations of attribute values that enough products have, and words them by templates.

    The templates take turns, and each draws its combinations with equal chances, so that rare kinds are asked for as
    well as common ones. No two queries ask for the same. Each has a synonym for at least one of its values, if synonyms
    are known at all.

    Args:
        corpus, rows: the products ranked.
        templates: with columns of the catalogue as fields.
        synonyms: their words.
        num_queries: at most so many.
        min_relevant: products that a combination needs. With fewer, a miss in the top 10 says as much about a handful
            of products' attributes, which aren't free of errors, as about the system.
        seed: of the draws.

    Raises:
        ValueError: if there is no such combination.
    """
    rng = np.random.default_rng(seed)
    pools: list[list[tuple[str, ...]]] = []
    for fields in templates.fields:
        columns = [corpus.attributes[column] for column in fields]
        counts = Counter(tuple(column[row] for column in columns) for row in rows)
        usable = sorted(
            values
            for values, count in counts.items()
            if count >= min_relevant
            and None not in values
            and (
                not synonyms.words or any(synonyms.words.get(c, {}).get(v) for c, v in zip(fields, values, strict=True))
            )
        )
        pools.append([usable[i] for i in rng.permutation(len(usable))])

    queries: list[ShopperQuery] = []
    asked = set()
    while len(queries) < num_queries and any(pools):
        for template, fields, pool in zip(templates.templates, templates.fields, pools, strict=True):
            combination: dict[str, str] = {}
            while pool and not combination:
                drawn = dict(zip(fields, pool.pop(), strict=True))
                combination = {} if frozenset(drawn.items()) in asked else drawn
            if not combination or len(queries) == num_queries:
                continue
            asked.add(frozenset(combination.items()))
            words = {}
            for column, value in combination.items():
                choices = synonyms.words.get(column, {}).get(value, [])
                if choices:
                    words[column] = choices[int(rng.integers(len(choices)))]
            plain = {column: value.lower() for column, value in combination.items()}
            queries.append(
                ShopperQuery(combination, words, template.format(**plain), template.format(**{**plain, **words}))
            )
    if not queries:
        raise ValueError(
            f"No combination of {templates.templates} has {min_relevant} products"
            f"{' and a synonym' if synonyms.words else ''}: change --shopper_templates, --synonyms_file or "
            "--min_relevant."
        )
    return queries


def shopper_tasks(
    queries: Sequence[ShopperQuery],
    synonyms: Synonyms,
    corpus: Corpus,
    rows: np.ndarray,
    suffix: str,
    kind_column: str | None,
    colour_column: str | None,
    training: TrainingTexts | None,
) -> tuple[Task, Task]:
    """The queries in the catalogue's words and in synonyms.

    Args:
        queries: of [`make_shopper_queries`].
        synonyms: their words.
        corpus, rows: the products ranked.
        suffix: of the tasks' names, for the products ranked.
        kind_column, colour_column: to slice the queries by, where the catalogue has them.
        training: for slices by training frequency and by new words.

    Returns:
        The plain task, and the one with synonyms, which has it as `plain`.
    """
    ranked = set(rows.tolist())

    def answers(query: ShopperQuery, with_synonyms: bool) -> dict[str, float]:
        found = ranked
        for column, value in query.values.items():
            asked = {value}
            if with_synonyms and column in query.words:
                asked = synonyms.values[column][query.words[column]]
            found = found & set().union(*(corpus.members[column].get(v, set()) for v in asked))
        return {corpus.ids[row]: 1.0 for row in sorted(found)}

    slices = {}
    if colour_column is not None:
        slices["colour"] = [query.values.get(colour_column, "none asked") for query in queries]
    if training is not None and kind_column is not None:
        bands = training.frequency_bands(kind_column)
        slices[f"{kind_column} in training"] = [
            bands.get(query.values[kind_column], "not in training") if kind_column in query.values else "none asked"
            for query in queries
        ]
    plain = Task(
        name=f"synthetic shopper queries, plain{suffix}",
        description="Synthetic queries: several attributes in the catalogue's own words, which are those of template "
        'queries in training, such as "men black formal shoes". The products with all of them are relevant.',
        queries=[query.plain for query in queries],
        relevance=[answers(query, with_synonyms=False) for query in queries],
        corpus=corpus,
        rows=rows,
        metrics=SHOPPER_METRICS,
        main_metric="ndcg@10",
        slices={"query length": length_slice([query.plain for query in queries]), **slices},
    )
    slices = {"query length": length_slice([query.synonym for query in queries]), **slices}
    if training is not None:
        slices["synonyms"] = [_novelty(query.words.values(), training) for query in queries]
    synonym = replace(
        plain,
        name=f"synthetic shopper queries, synonyms{suffix}",
        description="Synthetic queries: the same with synonyms in place of the catalogue's words wherever the list has "
        'one, such as "gents jet oxfords". The products with all of the attributes are relevant.',
        queries=[query.synonym for query in queries],
        relevance=[answers(query, with_synonyms=True) for query in queries],
        slices=slices,
        plain=plain,
    )
    return plain, synonym


def _novelty(words: Collection[str], training: TrainingTexts) -> str:
    """How new a query's synonyms are: that of its newest word."""
    tokens = {token for word in words for token in tokenize(word)} - training.query_words
    if not tokens:
        return "all words in training queries"
    return "all words in training titles" if tokens <= training.title_words else "a word in no training text"


# ----------------------------------------------------------------------------------------------------------------------
# Hidden words
# ----------------------------------------------------------------------------------------------------------------------


def word_forms(phrases: Collection[str]) -> set[str]:
    """The tokens of all phrases, and neighbouring ones written together: "flip", "flop" and "flipflop"."""
    forms = set()
    for phrase in phrases:
        tokens = tokenize(phrase)
        forms |= set(tokens) | {token for a, b in pairwise(tokens) for token in tokenize(a + b)}
    return forms


def hide_words(title: str, forms: Collection[str]) -> str | None:
    """The title without words that have one of the forms; None if nothing is left.

    Singular or plural, a hyphen, and two words for one ("T Shirt") make no difference.

    Args:
        title: any text.
        forms: of [`word_forms`].
    """
    words = list(WORD.finditer(title))
    hidden = [any(token in forms for token in tokenize(word.group())) for word in words]
    for i, (left, right) in enumerate(pairwise(words)):
        if any(token in forms for token in tokenize((left.group() + right.group()).replace("-", ""))):
            hidden[i] = hidden[i + 1] = True
    if not any(hidden):
        return title
    kept = [word.group() for word, is_hidden in zip(words, hidden, strict=True) if not is_hidden]
    return " ".join(kept) or None


def hide_attributes(corpus: Corpus, columns: Sequence[str], synonyms: Synonyms) -> Corpus:
    """The catalogue with titles that don't say any value of the columns, nor a synonym of one."""
    phrases = {value for column in columns for value in corpus.members[column]}
    phrases |= {word for column in columns for word in synonyms.values.get(column, ())}
    forms = word_forms(phrases)
    return replace(corpus, titles=[title and hide_words(title, forms) for title in corpus.titles])


def hidden_words_task(plain: Task, hidden: Corpus, columns: Sequence[str], suffix: str) -> Task:
    """The plain shopper queries on titles without the words that answer them."""
    return replace(
        plain,
        name=f"synthetic shopper queries, hidden words{suffix}",
        description="Synthetic queries: the plain ones. Every word of any value of "
        f"{', '.join(f'`{column}`' for column in columns)}, or of a synonym, is taken out of every title, for every "
        "system, so that the photo has to tell. Brands and other words that are left may still hint.",
        corpus=hidden,
        hidden_columns=tuple(columns),
    )
