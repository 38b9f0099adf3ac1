"""Words of titles and queries, for BM25 and for slices."""

import re

WORD = re.compile(r"\w+(?:-\w+)*")


def tokenize(text: str) -> list[str]:
    """Splits text the way a shop's lexical index is commonly set up, so that BM25 is no straw man.

    Words are lower-cased runs of letters, digits and underscores. A hyphenated word gives its parts and their join,
    so that "T-shirt" meets "Tshirts". English plurals are stripped by suffix, so that "Shirts" meets "Shirt". No stop
    words are removed. The rules are this project's own.
    """
    tokens = []
    for word in WORD.findall(text.lower()):
        parts = word.split("-")
        tokens += [strip_plural(part) for part in parts]
        if len(parts) > 1:
            tokens.append(strip_plural("".join(parts)))
    return tokens


def strip_plural(token: str) -> str:
    """A word in lower case without the ending of an English plural."""
    if token.endswith("ies") and len(token) > 4:  # accessories; but ties
        return token[:-3] + "y"
    if token.endswith(("sses", "shes", "ches", "xes", "zes")):
        return token[:-2]
    if token.endswith("s") and not token.endswith(("ss", "us", "is")) and len(token) > 3:
        return token[:-1]
    return token
