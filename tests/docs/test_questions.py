# SPDX-License-Identifier: MIT
"""The first hour: what each of the four asks is answered, where questions.yml says, and near to the README."""

import re
from pathlib import Path

import pytest
import yaml

from support.pages import TOP, clicks, page

QUESTIONS = yaml.safe_load(Path(__file__).with_name("questions.yml").read_text())
ASKED = [(who, asked) for who, questions in QUESTIONS.items() for asked in questions]
NEAR = 2


@pytest.fixture(scope="module")
def distance():
    """{page: how many links one follows from the README}."""
    return clicks(TOP / "README.md")


def test_each_of_the_four_asks_ten_questions():
    assert {who: len(questions) for who, questions in QUESTIONS.items()} == {
        "BSP engineer": 10, "app developer": 10, "QA": 10, "manufacturer": 10}
    assert len({asked["question"] for _, asked in ASKED}) == len(ASKED)


@pytest.mark.parametrize(("who", "asked"), ASKED, ids=[f"{who}: {asked['question']}" for who, asked in ASKED])
def test_it_is_answered(who, asked, distance):
    file, _, anchor = asked["answer"].partition("#")
    found = page(TOP / file)
    assert not anchor or anchor in found.anchors, f"{file} has no heading #{anchor}; it has {', '.join(found.anchors)}"
    assert asked["says"] in " ".join(found.section(anchor).split())
    assert distance[found.path] == asked["clicks"] <= NEAR


def test_the_four_pages_begin_one_click_away_and_have_ten_steps_at_most(distance):
    for name in ("bsp-engineer", "app-developer", "qa", "manufacturer"):
        found = page(TOP / "meta-composeapps" / "docs" / f"{name}.md")
        assert distance[found.path] == 1
        steps = [int(anchor.split("-")[0]) for anchor in found.anchors if anchor[0].isdigit()]
        assert steps == list(range(1, len(steps) + 1)) and 0 < len(steps) <= 10, name


def test_every_page_can_be_reached(distance):
    pages = [*(TOP / "meta-composeapps").glob("*.md"), *(TOP / "meta-composeapps" / "docs").rglob("*.md")]
    far = {str(path.relative_to(TOP)) for path in pages if path not in distance and "decisions" not in path.parts}
    assert far == set()


# What only those know who know this field, and where it is explained.
_TERMS = {
    "bundle": "bundle", "layers-meta": "layers-meta", "factory set": "factory-set", "factory store": "factory-store",
    "restorable": "restorable-store", "composectl": "composectl", "pinned": "pinned", "preloaded?": "preload",
}
_READ = [TOP / "README.md", *(TOP / "meta-composeapps").glob("*.md"), *(TOP / "meta-composeapps" / "docs").glob("*.md")]


@pytest.mark.parametrize("term", _TERMS)
def test_a_term_is_linked_where_a_page_uses_it_first(term):
    unexplained = []
    for path in _READ:
        if path.name in ("glossary.md", "CHANGELOG.md"):
            continue
        first = next(((line, target) for text, line, target in page(path).words
                      if re.search(rf"\b{term}s?\b", text, re.IGNORECASE)), None)
        if first and not (first[1] or "").endswith(f"glossary.md#{_TERMS[term]}"):
            unexplained.append(f"{path.relative_to(TOP)}:{first[0]}")
    assert unexplained == []


def test_the_glossary_explains_them():
    assert set(_TERMS.values()) <= set(page(TOP / "meta-composeapps" / "docs" / "glossary.md").anchors)
