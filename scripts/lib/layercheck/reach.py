# SPDX-License-Identifier: MIT
"""Whether the repositories of a combination can be had, found out before minutes are spent on it."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from layercheck.process import without_logins

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Repository:
    """A repository that kas fetches.

    Arguments:
        name: the key in the kas file.
        url: as written there.
        commit: the pinned commit, or None.
        branch: the branch or tag, or None.
    """

    name: str
    url: str
    commit: str | None
    branch: str | None


@dataclass(frozen=True)
class Reach:
    """What became of looking for a Repository: where its ``revision`` is, or the ``problem``."""

    repository: Repository
    revision: str | None = None
    problem: str | None = None

    def sentence(self):
        """Return the line that tells a user what could not be reached, and why."""
        return f"not reached: {self.repository.name} ({without_logins(self.repository.url)}): {self.problem}"


def repositories(config):
    """Return the Repositories of a merged kas configuration (the output of ``kas dump``).

    Keys and their defaults: kas's documentation of the project configuration, "repos", "defaults", "overrides".
    """
    defaults = config.get("defaults", {}).get("repos", {})
    pinned = config.get("overrides", {}).get("repos", {})
    found = []
    for name, entry in config.get("repos", {}).items():
        settings = {**defaults, **(entry or {}), **pinned.get(name, {})}
        if settings.get("url"):
            found.append(Repository(name, settings["url"], settings.get("commit"),
                                    settings.get("tag") or settings.get("branch")))
    return found


class Prober:
    """Looks for repositories with git, each only once.

    Arguments:
        environment: of kas (Kas.environment): its mirrors and git configuration count.
        layers: kas's checkouts.
        timeout: seconds that one repository may take to answer.
    """

    def __init__(self, environment, layers, timeout=TIMEOUT_SECONDS):
        # git's own name for what kas calls GITCONFIG_FILE.
        self._environment = {**environment, "GIT_CONFIG_GLOBAL": environment["GITCONFIG_FILE"]}
        self._layers, self._timeout = Path(layers), timeout
        self._known = {}

    def look(self, wanted):
        """Return the Reach of each Repository in ``wanted``."""
        new = [repository for repository in dict.fromkeys(wanted) if repository not in self._known]
        with ThreadPoolExecutor(max_workers=8) as pool:
            self._known.update(zip(new, pool.map(self._probe, new), strict=True))
        return [self._known[repository] for repository in wanted]

    def _probe(self, repository):
        if repository.commit and any(self._holds(place, repository.commit) for place in self._local_places(repository)):
            return Reach(repository, revision=repository.commit)
        url = premirrored(repository.url, self._environment.get("KAS_PREMIRRORS", ""))
        refs, problem = self._refs(url)
        if problem:
            return Reach(repository, problem=problem)
        branch = repository.branch
        tip = None
        if branch:
            names = [branch] if branch.startswith("refs/") else [f"refs/heads/{branch}", f"refs/tags/{branch}"]
            tip = next((refs[name] for name in names if name in refs), None)
            if not tip:
                return Reach(repository, problem=f"it has no branch or tag '{branch}'")
        if not repository.commit:
            return Reach(repository, revision=tip or refs.get("HEAD"))
        place = self._rewritten(url)
        if place and repository.commit not in refs.values() and not self._holds(place, repository.commit):
            return Reach(repository, problem=f"the pinned commit {repository.commit} is not in its mirror {place}")
        return Reach(repository, revision=repository.commit)

    def _local_places(self, repository):
        yield self._layers / repository.name
        reference = self._environment.get("KAS_REPO_REF_DIR")
        if reference:
            yield Path(reference) / qualified_name(repository.url)

    def _git(self, *words, timeout=None):
        return subprocess.run(["git", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", env=self._environment, timeout=timeout, check=False)

    def _holds(self, place, commit):
        words = ["-C", str(place), "cat-file", "-e", f"{commit}^{{commit}}"]
        return Path(place).is_dir() and not self._git(*words).returncode

    def _refs(self, url):
        try:
            done = self._git("ls-remote", "--", url, timeout=self._timeout)
        except subprocess.TimeoutExpired:
            return {}, f"no answer within {self._timeout} s"
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.startswith(("fatal:", "error:"))]
            said = (words or done.stderr.splitlines() or ["git failed and said nothing"])[0]
            return {}, without_logins(said.split(":", 1)[-1].strip())
        return dict(reversed(line.split("\t", 1)) for line in done.stdout.splitlines() if "\t" in line), None

    def _rewritten(self, url):
        """Return the directory that ``url`` means after git's insteadOf, or None when it is on another machine."""
        place = self._git("ls-remote", "--get-url", "--", url).stdout.strip().removeprefix("file://")
        return place if os.path.isdir(place) else None


def premirrored(url, premirrors):
    """Return the URL that kas uses for ``url`` under KAS_PREMIRRORS: lines of an expression and its substitute."""
    for line in premirrors.splitlines():
        words = line.split()
        if len(words) == 2 and re.match(words[0], url):
            return re.sub(words[0], words[1], url)
    return url


def qualified_name(url):
    """Return the directory of ``url`` below KAS_REPO_REF_DIR, as kas names it."""
    parts = urlparse(url)
    return re.sub(r"[@:/*]", ".", f"{parts.netloc}{parts.path}")


def mirrors_in(directory, urls):
    """Return {URL: repository} of the ``urls`` for which ``directory`` has a repository.

    It may be called as kas does it in KAS_REPO_REF_DIR, or by the last part of the URL, with or without ".git".
    """
    found = {}
    for url in urls:
        last = url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
        for name in (qualified_name(url), last, f"{last}.git"):
            if (Path(directory) / name).is_dir():
                found[url] = str(Path(directory) / name)
                break
    return found
