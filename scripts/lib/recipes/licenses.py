# SPDX-License-Identifier: MIT
"""Licence expressions: from SPDX (image labels) to the notation of Yocto's LICENSE.

SPDX 2.3 annex D joins identifiers with AND, OR and WITH; LICENSE joins them with & and |
and spells an exception as part of the identifier (``GPL-3.0-or-later-with-GCC-exception-3.1``).
"""

import re

LABEL = "org.opencontainers.image.licenses"
CLOSED = "CLOSED"

_TOKEN = re.compile(r"\s*(?:(?P<op>[()&|])|(?P<word>[A-Za-z0-9][A-Za-z0-9.+-]*))")
_OPERATORS = {"AND": "&", "OR": "|"}


class LicenseError(ValueError):
    """Text that is not a licence expression."""


def to_yocto(text):
    """Return the LICENSE form of an SPDX expression (one in Yocto's own notation passes as well).

    :raises LicenseError: it is not one
    """
    return _write(_parse(text))


def combine(texts):
    """Return the LICENSE that meets all of the given SPDX expressions, in an order that depends on nothing else.

    :raises LicenseError: one of them is not an expression
    """
    parts = set()
    for text in texts:
        tree = _parse(text)
        parts.update(map(_operand, tree[1] if tree[0] == "&" else [tree]))
    return " & ".join(sorted(parts))


def _parse(text):
    """Return a tree: ("id", name), ("&", [trees]) or ("|", [trees])."""
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if not match:
            odd = text[position:].strip()[0]
            raise LicenseError(f"'{text}' is not a licence expression: '{odd}' has no place in it")
        tokens.append(match["op"] or _OPERATORS.get(match["word"].upper(), match["word"]))
        position = match.end()
    tree, rest = _either(tokens, text)
    if rest:
        raise LicenseError(f"'{text}' is not a licence expression: '{rest[0]}' is one too many")
    return tree


def _either(tokens, text):
    return _joined("|", _both, tokens, text)


def _both(tokens, text):
    return _joined("&", _single, tokens, text)


def _joined(operator, parse, tokens, text):
    tree, tokens = parse(tokens, text)
    trees = [tree]
    while tokens[:1] == [operator]:
        tree, tokens = parse(tokens[1:], text)
        trees.append(tree)
    if len(trees) == 1:
        return trees[0], tokens
    flat = [inner for tree in trees for inner in (tree[1] if tree[0] == operator else [tree])]
    return (operator, flat), tokens


def _single(tokens, text):
    if tokens[:1] == ["("]:
        tree, tokens = _either(tokens[1:], text)
        if tokens[:1] != [")"]:
            raise LicenseError(f"'{text}' is not a licence expression: a parenthesis is not closed")
        return tree, tokens[1:]
    if not tokens or tokens[0] in "&|)" or tokens[0].upper() == "WITH":
        raise LicenseError(f"'{text}' is not a licence expression: an identifier is missing")
    name, tokens = tokens[0], tokens[1:]
    if tokens and tokens[0].upper() == "WITH":
        if len(tokens) < 2 or tokens[1] in "&|()":
            raise LicenseError(f"'{text}' is not a licence expression: WITH names no exception")
        name, tokens = f"{name}-with-{tokens[1]}", tokens[2:]
    return ("id", name), tokens


def _write(tree):
    kind, value = tree
    if kind == "id":
        return value
    return f" {kind} ".join(_operand(inner) for inner in value)


def _operand(tree):
    return _write(tree) if tree[0] == "id" else f"({_write(tree)})"
