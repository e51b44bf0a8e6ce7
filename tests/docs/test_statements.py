# SPDX-License-Identifier: MIT
"""What the pages name is there: links and headings, files, variables, options; and their commands parse."""

import pytest

from support import statements
from support.pages import TOP, Page, page

PAGES = statements.pages()
# Words in backticks that are other projects', and stand nowhere in ours.
FOREIGN = {
    "loadgroup": "a way of pytest-xdist to distribute tests",
    "podman": "another container engine",
    "fallocate": "a program of util-linux",
    "contrib": "a package of docker-moby",
    "ARCHS": "an argument of composectl",
    "DISK": "stands for the name of a disk",
    "APP_NAME": "a variable in the file that CURRENT_TARGET names",
}
# Paths and variables that are made elsewhere.
ELSEWHERE = {
    "composeapps/APP.json": "in the deploy directory of a build",
    "meta-composeapps/meta-composeapps": "in a directory that kas cloned this repository into",
    "meta-composeapps/recipes-apps": "where gen-recipes writes recipes of apps, which git ignores",
    "conf/bblayers.conf": "in a build directory of BitBake",
    "COMPOSEAPPS_REASON": "made of the key 'reason' by update/callback.py",
}
# Pages say of these that they are not there yet.
NOT_YET = {"scripts/qa"}
LANGUAGES = {"sh", "text", "yaml", "toml", "json", "python", "bitbake", "html", "ini", "dockerfile", "diff"}
REASONS = {"needs a connected build", "needs hardware", "an example", "needs another machine"}
IDS = [str(path.relative_to(TOP)) for path in PAGES]
each_page = pytest.mark.parametrize("path", PAGES, ids=IDS)


def test_there_are_pages():
    assert TOP / "README.md" in PAGES and len(PAGES) > 30


@each_page
def test_links_lead_somewhere(path):
    assert list(statements.links(path)) == []


@each_page
def test_files_that_it_names_are_there(path):
    assert [found for span in statements.spans(path) if span.text not in {*NOT_YET, *ELSEWHERE}
            for found in statements.files(span)] == []


@each_page
def test_variables_that_it_names_are_the_codes(path):
    found = [found for span in statements.spans(path) for found in statements.variables(span.text, span)]
    for block in page(path).blocks:
        if block.language in ("sh", "bitbake", ""):
            found += statements.variables(block.text, f"{path.name}:{block.line}")
    assert [each for each in found if each.split()[-1] not in {**FOREIGN, **ELSEWHERE}] == []


@each_page
def test_words_in_backticks_stand_in_the_tree(path):
    assert [found for span in statements.spans(path) for found in statements.words(span, FOREIGN)
            if span.text not in NOT_YET] == []


@each_page
def test_commands_and_options_are_those_of_the_parsers(path):
    places = [(str(span), span.text) for span in statements.spans(path) if span.text not in NOT_YET]
    places += [(f"{path.name}:{block.line}", block.text) for block in page(path).blocks if block.language == "sh"]
    found = [f"{place}: {said}" for place, text in places for words in statements.command_lines(text)
             if words[0] not in NOT_YET and (said := statements.command(words))]
    found += [said for span in statements.spans(path) for said in statements.options(span)]
    assert [said for said in found if said.split()[-1] not in NOT_YET] == []


@each_page
def test_blocks_have_a_language_and_marks_that_are_understood(path):
    """Else one that is to be run may silently not be."""
    wrong = []
    for block in page(path).blocks:
        where = f"{path.relative_to(TOP)}:{block.line}"
        if block.language not in LANGUAGES:
            wrong.append(f"{where}: a block with the language '{block.language}'")
        for mark in block.marks:
            kind, _, value = (part.strip() for part in mark.partition(":"))
            known = {"not run": value in REASONS, "slow": not value, "status": value.isdecimal(),
                     "on the device": not value, "output": not value, "file": bool(value)}
            if not known.get(kind):
                wrong.append(f"{where}: the mark '{mark}' is not known")
    assert wrong == []


# The checks themselves.


@pytest.fixture
def written(tmp_path):
    """Return what the checks say of a page with a text."""
    def check(text):
        path = TOP / "meta-composeapps" / "docs" / "page.md"
        found = tmp_path / "page.md"
        found.write_text(text)
        said = []
        for span in statements.spans(found):
            span = span._replace(path=path)  # noqa: PLW2901
            said += [*statements.files(span), *statements.variables(span.text, span), *statements.words(span),
                     *statements.options(span)]
            said += filter(None, map(statements.command, statements.command_lines(span.text)))
        for block in Page(found).blocks:
            said += filter(None, map(statements.command, statements.command_lines(block.text)))
        return said

    return check


@pytest.mark.parametrize(("text", "says"), [
    ("`docs/nowhere.md`", "no file docs/nowhere.md"), ("`kas/base.yml:kas/qemuz80.yml`", "no file kas/qemuz80.yml"),
    ("`classes-recipe/composeapps-disc.bbclass`", "no file"), ("`nowhere.py`", "no file"),
    ("`COMPOSEAPPS_PRELOADS`", "the variable COMPOSEAPPS_PRELOADS"), ("`zorkmid`", "'zorkmid'"),
    ("`composeapps frobnicate`", "no command frobnicate"), ("`composeapps pull --quickly REF`", "no option --quickly"),
    ("`composeapps update --plan REF --jsn`", "no option --jsn"), ("`scripts/demos`", "there is no"),
    ("`composeapps history web extra`", "unrecognized"),
    ("`scripts/build-image --pre-load web`", "no option --pre-load"), ("`--frobnicate`", "the option --frobnicate"),
    ("```sh\nsudo scripts/check-layer --list --fast\n```", "no option --fast"),
    ("```sh\necho $(composeapps ls --long | tail)\n```", "no option --long"),
])
def test_what_is_not_so_is_found(written, text, says):
    assert any(says in found for found in written(text)), written(text)


@pytest.mark.parametrize("text", [
    "`kas/base.yml:kas/qemuarm64.yml`", "`:kas/preload.yml`", "`COMPOSEAPPS_PRELOAD`", "`conf/apps/*.yml`",
    "`composeapps update fetch REF…`", "`composeapps history [APP] [-n N] [--json]`", "`scripts/bench`",
    "`composeapps rm APP`", "`--dry-run`", "`oci/names.py`",
])
def test_what_is_so_is_not_found(written, text):
    assert written(text) == []


def test_the_examples_of_a_configuration_are_taken_by_the_agent(tmp_path):
    """Files that an example names need not be there."""
    from composeapps.cli.config import load

    found = 0
    for path in PAGES:
        for block in page(path).blocks:
            if block.language == "toml":
                (tmp_path / "config.toml").write_text(block.text)
                load(tmp_path / "config.toml")
                found += 1
    assert found >= 2
