"""How a search is answered: reading the query, finding by vectors and by exact words, ranking, grouping, cutting off.

Each step is a module of its own; this one has their order.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from acebert.catalog import spelling
from acebert.catalog.calibration import Calibration, Calibrations
from acebert.catalog.dates import to_moment
from acebert.catalog.exact_words import QueryWord, read_query_words, sought, weigher
from acebert.catalog.filters import Filter, both, parse_filters
from acebert.catalog.grouping import best_of_each, count_members, outside
from acebert.catalog.indexes.base import CatalogIndex, Match
from acebert.catalog.maintenance import index_schema
from acebert.catalog.near_values import find_near_values
from acebert.catalog.query_parsing import Chip
from acebert.catalog.records import Photo, Results, to_hit
from acebert.catalog.search_options import Options
from acebert.catalog.store import Settings
from acebert.catalog.vocabulary import Vocabulary
from acebert.catalog.words import WORDS_ATTRIBUTE, spellings, split_words
from acebert.encoding.encoder import Encoder

DEPTH = 200  # candidates that are ranked by more than their vectors, of those by vectors and of those by exact words
SORTED = 1_000  # best matches that are sorted by a number, or cut off by `min_score`
TEXTS_KEPT = 4_096  # vectors of queries: 6 MB of 384 numbers
MOST_VALUES = 100_000  # of an attribute of paths
UNDERSTOOD = 0.05  # what an attribute value that the query says adds to a score
FITTING = 0.5  # share of the best score that a match needs to be sorted by a number
SAID = 1 / 3  # share of a query's rarity: where products have less of it, its vector alone must be convincing
CHANCE = 0.5  # confidence below which it isn't


@dataclass(frozen=True)
class Query:
    """A query as it was read.

    Args:
        text: the words to search for, corrected; None for a search by photo, product or vector.
        where: what hits must meet, the filters of the search and those of the text.
        chips: what the text says beside words.
        corrections: typed words to those in their place.
        expansions: terms to what the catalogue says for them, which is searched for as well.
    """

    text: str | None = None
    where: Filter | None = None
    chips: Sequence[Chip] = ()
    corrections: Mapping[str, str] = field(default_factory=dict)
    expansions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A match, and what its score is made of."""

    match: Match
    parts: dict[str, float]

    @property
    def score(self) -> float:
        return sum(self.parts.values())


class Searcher:
    """Answers a catalogue's searches. Threads may share one.

    Args:
        settings: of the catalogue.
        encoder: None for a catalogue that was opened without a model.
        vocabulary, calibrations: of the catalogue.
    """

    def __init__(
        self, settings: Settings, encoder: Encoder | None, vocabulary: Vocabulary, calibrations: Calibrations
    ) -> None:
        self.settings, self.encoder = settings, encoder
        self.vocabulary, self.calibrations = vocabulary, calibrations
        self.schema = index_schema(settings)
        self._encode_text = lru_cache(TEXTS_KEPT)(lambda text: self._check_encoder().encode_queries([text], None)[0])

    # ------------------------------------------------------------------------------------------------------------------
    # Reading
    # ------------------------------------------------------------------------------------------------------------------

    def read(self, index: CatalogIndex, text: str | None, options: Options) -> Query:
        """Takes a query apart, corrects what words are left, and joins its filters with the search's."""
        where = self.where(index, options.filters)
        chips: Sequence[Chip] = ()
        corrections: dict[str, str] = {}
        expansions: dict[str, str] = {}
        if text is not None and options.using != "words":
            parser = self.vocabulary.parser(index) if options.understand else None
            if parser is not None:
                understood = parser.parse(text, options.as_words)
                text, chips = understood.text, understood.chips
            kept = {word for part in options.as_words for word in part.casefold().split()}
            if options.correct:
                values = parser.containing if parser is not None else {}

                def find_known(words: Collection[str]) -> set[str]:
                    known = {word for word in words if word in kept or word in values}
                    return known | self._known(index, [word for word in words if word not in known])

                corrections = spelling.correct(text, lambda: self.vocabulary.words(index), find_known)
                text = spelling.apply(text, corrections)
                if corrections and parser is not None:
                    understood = parser.parse(text, options.as_words)
                    chips = [*(chip for chip in chips if chip.effect == "filter"), *understood.chips]
                    text = understood.text
            if options.expand:
                found = self.vocabulary.expand(index, text)
                expansions = {term: said for term, said in found.items() if not set(term.split()) & kept}
        asked = [parse_filters(chip.filters, self.schema) for chip in chips if chip.effect == "filter"]
        return Query(text, both(where, *asked), chips, corrections, expansions)

    def where(self, index: CatalogIndex, filters: Mapping[str, Any] | None) -> Filter | None:
        """Filters as an index reads them."""
        return parse_filters(filters, self.settings.attributes, lambda name: index.facets(name, limit=MOST_VALUES))

    def _known(self, index: CatalogIndex, words: Collection[str]) -> set[str]:
        """The words that the encoder's vocabulary or any product has."""
        known = {word for word in words if self.encoder is not None and self.encoder.knows_word(word)}
        forms = {word: spellings(word) for word in words if word not in known}
        there = index.count_values(WORDS_ATTRIBUTE, sorted({form for each in forms.values() for form in each}))
        return known | {word for word, each in forms.items() if not there.keys().isdisjoint(each)}

    def _check_encoder(self) -> Encoder:
        if self.encoder is None:
            name = self.settings.model["name"]
            raise ValueError(f"To search by words or photos, load the catalogue with its model: {name!r}.")
        return self.encoder

    def encode(self, texts: Sequence[str] | None, images: Sequence[Photo] | None) -> np.ndarray:
        """(queries, dim) float32 unit vectors; that of a text that was asked for lately is kept."""
        encoder = self._check_encoder()
        if images is None and texts is not None and len(texts) == 1:
            return self._encode_text(texts[0])[None]
        return encoder.encode_queries(texts, images)

    # ------------------------------------------------------------------------------------------------------------------
    # Finding
    # ------------------------------------------------------------------------------------------------------------------

    def by_queries(
        self, index: CatalogIndex, texts: Sequence[str] | None, images: Sequence[Photo] | None, options: Options
    ) -> list[Results]:
        """Answers queries by words, photos or both."""
        self._check_encoder()  # before the texts are corrected
        asked: Sequence[str | None] = texts if texts is not None else [None] * len(images or ())
        queries = [self.read(index, text, options) for text in asked]
        if images is not None:  # a photo shows what is meant
            queries = [replace(query, expansions={}) for query in queries]
        vectors = self.encode(None if texts is None else [str(query.text) for query in queries], images)
        vectors = np.stack([self._expand(*each) for each in zip(vectors, queries, strict=True)])
        return [self._by_vector(index, *each, options) for each in zip(queries, vectors, strict=True)]

    def _expand(self, vector: np.ndarray, query: Query) -> np.ndarray:
        """The unit vector of the mean of a query's vector and that of the query with its expansions behind it.

        The mean bounds what a wrong one can do, as with two queries for one need (Belkin et al. 1995,
        https://doi.org/10.1016/0306-4573(94)00057-A).
        """
        if not query.expansions:
            return vector
        both_ways = vector + self.encode([" ".join([str(query.text), *query.expansions.values()])], None)[0]
        return both_ways / np.linalg.norm(both_ways)

    def by_vectors(self, index: CatalogIndex, vectors: np.ndarray, options: Options) -> list[Results]:
        """Answers by (queries, dim) vectors that were encoded elsewhere."""
        query = self.read(index, None, options)
        return [self._by_vector(index, query, vector, options) for vector in vectors]

    def like(self, index: CatalogIndex, key: str, product_id: Any, options: Options) -> Results:
        """Answers by a product's vector, with neither it nor its group among the hits.

        Raises:
            KeyError: there is no such product.
        """
        (match,) = index.get([key], with_vectors=["product"])
        if match is None:
            raise KeyError(f"There is no product with the id {product_id!r}.")
        query = self.read(index, None, options)
        group = match.payload["attributes"].get(options.group_by)
        if options.group_by is not None and group is not None:
            query = replace(query, where=both(query.where, outside(options.group_by, group)))
        return self._by_vector(index, query, match.vectors["product"], options, exclude=key)

    def by_words(self, index: CatalogIndex, texts: Sequence[str], options: Options) -> list[Results]:
        """Answers by BM25 on the titles alone."""
        answers = []
        for text in texts:
            query = self.read(index, text, options)
            matches = index.search_words([text], self._depth(options), query.where)[0]
            ranked = [Candidate(match, {"bm25": match.score} | self._boosts(match, options)) for match in matches]
            ranked.sort(key=lambda candidate: -candidate.score)
            answers.append(self._results(index, query, ranked, ranked, None, options, nothing_fits=not ranked))
        return answers

    def _by_vector(
        self, index: CatalogIndex, query: Query, vector: np.ndarray, options: Options, exclude: str | None = None
    ) -> Results:
        """Answers by a (dim,) vector, and by exact words where the query has some."""
        words: list[QueryWord] = []
        if query.text is not None and options.exact_words and options.using == "product":
            count_words = partial(index.count_values, WORDS_ATTRIBUTE)
            words = read_query_words(query.text, count_words, self.vocabulary.size(index), self._in_vocabulary)
        seek = sought(words)
        depth = self._depth(options, reranked=bool(words or query.chips)) + (exclude is not None)
        while True:
            matches = index.search(vector[None], depth, query.where, using=options.using)[0]
            complete = len(matches) < depth
            if seek is not None:  # few have such words: a graph is no quicker
                where = both(query.where, seek)
                matches += index.search(vector[None], depth, where, using=options.using, exact=True)[0]
            found = {match.key: match for match in matches if match.key != exclude}
            ranked = self._rank(found.values(), words, query.chips, options)
            kept = self._keep(index, ranked, options)
            enough = len(self._page(kept, options)) == options.wanted or len(kept) < len(ranked)
            if complete or options.group_by is None or enough:
                break
            depth *= 4  # many of the best are of the same groups
        unfit = query.text is not None and self._is_unfit(index, query.text, words, ranked, options)
        return self._results(index, query, kept, ranked, vector, options, nothing_fits=unfit or not ranked)

    def _depth(self, options: Options, reranked: bool = False) -> int:
        depth = options.wanted
        if reranked or options.boosts or options.group_by:
            depth = max(depth, DEPTH)
        if options.sort_by or options.min_score is not None:
            depth = max(depth, SORTED)
        return depth

    def _in_vocabulary(self, word: str) -> bool:
        return self.encoder is None or self.encoder.knows_word(word)

    # ------------------------------------------------------------------------------------------------------------------
    # Ranking
    # ------------------------------------------------------------------------------------------------------------------

    def _rank(
        self, matches: Collection[Match], words: Sequence[QueryWord], chips: Sequence[Chip], options: Options
    ) -> list[Candidate]:
        """Candidates by the sum of what their scores are made of, best first; equal ones as they came."""
        candidates, weigh = [], weigher(words)
        understood = [chip for chip in chips if chip.effect == "boost"]
        for match in matches:
            attributes = match.payload["attributes"]
            parts = {"similarity": match.score}
            if exact := weigh(attributes.get(WORDS_ATTRIBUTE, ())):
                parts["words"] = exact
            if met := sum(chip.met_by(attributes) for chip in understood):
                parts["understood"] = UNDERSTOOD * met
            candidates.append(Candidate(match, parts | self._boosts(match, options)))
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def _boosts(self, match: Match, options: Options) -> dict[str, float]:
        attributes = match.payload["attributes"]
        return {name: gain for name, boost in options.boosts.items() if (gain := boost.of(attributes.get(name)))}

    def _keep(self, index: CatalogIndex, ranked: list[Candidate], options: Options) -> list[Candidate]:
        """Those of enough confidence; where they are to be sorted by a number, those that fit well enough, sorted."""
        if options.min_score is not None:
            calibration = self.calibration(index, options.using)
            if calibration is not None:
                ranked = [candidate for candidate in ranked if confidence(calibration, candidate) >= options.min_score]
        if options.sort_by and ranked:
            name, sign = options.sort_by.removeprefix("-"), -1 if options.sort_by.startswith("-") else 1
            least = FITTING * ranked[0].score
            most = max(found.parts.get("words", 0.0) for found in ranked) or math.inf  # of exact words
            fitting = [found for found in ranked if found.score >= least or found.parts.get("words", 0.0) >= most][
                :SORTED
            ]
            values = [found.match.payload["attributes"].get(name) for found in fitting]
            if self.settings.attributes[name] == "date":
                values = [value and to_moment(value).timestamp() for value in values]
            order = sorted(range(len(values)), key=lambda i: (values[i] is None, sign * (values[i] or 0)))
            ranked = [fitting[i] for i in order]
        return ranked

    def _page(self, ranked: Sequence[Candidate], options: Options) -> list[Candidate]:
        """The best up to the end of the page, one of each group."""
        if options.group_by is None:
            return list(ranked[: options.wanted])
        return best_of_each(ranked, lambda candidate: self._group_of(candidate, options), options.wanted)

    @staticmethod
    def _group_of(candidate: Candidate, options: Options) -> Any:
        return candidate.match.payload["attributes"].get(options.group_by)

    # ------------------------------------------------------------------------------------------------------------------
    # Telling
    # ------------------------------------------------------------------------------------------------------------------

    def _results(
        self,
        index: CatalogIndex,
        query: Query,
        kept: Sequence[Candidate],
        ranked: Sequence[Candidate],
        vector: np.ndarray | None,
        options: Options,
        nothing_fits: bool,
    ) -> Results:
        """A page of what was kept, with all that a shopper may want to know about it."""
        page, group_by = self._page(kept, options)[options.offset :], options.group_by
        keys = [candidate.match.key for candidate in page]
        sides = [name for name in self.settings.vectors if name != "product"] if vector is not None else []
        with_sides: list[Match | None] = list(index.get(keys, sides)) if sides and keys else [None] * len(page)
        groups = [None if group_by is None else self._group_of(candidate, options) for candidate in page]
        sizes = count_members(index, group_by, groups, query.where) if group_by and page else {}
        hits = [
            # A product that was deleted a moment ago is shown without its sides.
            to_hit(match or candidate.match, candidate.parts, vector, sizes.get(group))
            for candidate, match, group in zip(page, with_sides, groups, strict=True)
        ]
        if options.min_score is not None or options.sort_by:
            total = len(self._page(kept, replace(options, top_k=len(kept) + 1)))
        else:
            total = index.count(query.where, group_by)
        return Results(
            hits,
            total=total,
            text=query.text,
            corrections=query.corrections,
            expansions=query.expansions,
            chips=query.chips,
            nothing_fits=nothing_fits,
            near_values=find_near_values(index, query.where, self.schema) if query.where and not ranked else {},
        )

    def _is_unfit(
        self, index: CatalogIndex, text: str, words: Sequence[QueryWord], ranked: Sequence[Candidate], options: Options
    ) -> bool:
        """Whether neither words nor vectors say that the best hits are more than chance."""
        if not options.exact_words or options.using != "product" or sum(word.share for word in words) >= SAID:
            return False
        if any("understood" in found.parts for found in ranked):
            return False
        typed = [word for chunk in split_words(text) for word in chunk]
        if not words and not any(map(self._in_vocabulary, typed)):
            return True
        calibration = self.calibration(index, options.using)
        return calibration is not None and all(confidence(calibration, found) < CHANCE for found in ranked)

    def calibration(self, index: CatalogIndex, using: str) -> Calibration | None:
        """By which scores become confidences; None where that can't be said."""
        return None if self.encoder is None else self.calibrations.get(index, self.encoder, using)


def confidence(calibration: Calibration, candidate: Candidate) -> float:
    """How little chance has to do with a candidate, in [0, 1], boosts left out."""
    return calibration.confidence(candidate.parts.get("similarity", 0.0) + candidate.parts.get("words", 0.0))
