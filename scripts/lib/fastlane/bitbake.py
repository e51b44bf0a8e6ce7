# SPDX-License-Identifier: MIT
"""BitBake's library in this process: configuration, recipes, and its messages turned into one sentence.

``bb`` keeps its state in module globals, so a process opens one build directory and no other.
"""

import contextlib
import glob
import logging
import os
import re
import sys
import types
from pathlib import Path

from fastlane.errors import BuildError

# What tasks see of the caller's environment besides what BitBake itself lets through.
KEPT = re.compile(r"(http|https|ftp|all|no)_proxy|TMPDIR|COMPOSEAPPS_(CALLER|BUILD|MIRROR)", re.IGNORECASE)
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_.:+/-]*(\[[A-Za-z0-9_.+-]+\])?$")


class Messages(logging.Handler):
    """Collects what BitBake logs, since its exceptions often say only that something was logged."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.errors, self.warnings = [], []

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {describe(record.exc_info[1])}"
        (self.errors if record.levelno >= logging.ERROR else self.warnings).append(text)

    def clear(self):
        """Forget what was collected."""
        self.errors, self.warnings = [], []


def describe(err):
    """Return one sentence for an exception of BitBake's, with file and line where it has them."""
    import bb

    if isinstance(err, bb.parse.ParseError):
        place = f"{_short(err.filename)}:{err.lineno}" if err.lineno else _short(err.filename)
        return f"{place}: {_first_line(err.msg)}"
    if isinstance(err, SyntaxError) and err.filename:
        return f"{_short(err.filename)}:{err.lineno}: {err.msg}"
    if isinstance(err, bb.data_smart.ExpansionError):
        inner = f"{type(err.exception).__name__}: {err.exception}"
        return f"{err.varname or 'an expression'} cannot be expanded ({_first_line(inner)})"
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return _first_line(str(err)) or type(err).__name__


def sentence(errors, err=None):
    """Return the sentence to show for collected error messages and the exception that ended the work."""
    import bb

    if err is not None and not isinstance(err, bb.BBHandledException) and str(err):
        return describe(err)
    for text in errors:
        fetcher = re.match(r"Fetcher failure for URL: '([^';]*)[^']*'\. (.*)", text, re.DOTALL)
        if fetcher:
            return f"fetching {fetcher[1]}: {_first_line(fetcher[2])}"
        if text.startswith("Error executing a python function") or "Traceback" in text or "\nException: " in text:
            last = [line for line in text.splitlines() if line.strip()][-1].strip()
            found = re.findall(r"^Exception: (.*)$", text, re.MULTILINE)
            return found[-1] if found else last
        return _first_line(text)
    return describe(err) if err is not None else "BitBake gave no reason"


def _first_line(text):
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0] if lines else ""


def _short(path):
    relative = os.path.relpath(path, os.environ.get("COMPOSEAPPS_CALLER", "/"))
    return path if relative.startswith("..") else relative


class BitBake:
    """An opened build directory.

    Arguments:
        topdir: the build directory (TOPDIR); its conf/ is written anew.
        layers: directories of the layers, the stand-in for openembedded-core first.
        local: lines for conf/local.conf.
        recipe_directories: further directories with recipes, ``DIR/*/*.bb`` or ``DIR/*.bb``.

    Raises BuildError with file and line when the configuration cannot be parsed.
    """

    def __init__(self, topdir, layers, local=(), recipe_directories=()):
        self.topdir = Path(topdir).resolve()
        self._write_configuration(layers, local, recipe_directories)
        # BitBake looks for conf/ from the current directory upwards and keeps relative paths.
        os.environ["COMPOSEAPPS_CALLER"] = os.getcwd()
        os.chdir(self.topdir)
        self.messages = Messages()
        bb = self._import()
        settings = types.SimpleNamespace(
            prefile=[], postfile=[], tracking=False, skip_fragments=True,
            env=dict(os.environ))
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        bb.utils.clean_environment()
        os.environ.update(kept)
        try:
            self._builder = bb.cookerdata.CookerDataBuilder(settings, worker=True)
            self._builder.parseBaseConfiguration(worker=True)
        except (Exception, SystemExit) as err:
            raise BuildError(sentence(self.messages.errors, err)) from None
        self.d = self._builder.data
        self.d.setVar("PATH", os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
        self.d.setVarFlag("PATH", "export", "1")

    def _write_configuration(self, layers, local, recipe_directories):
        conf = self.topdir / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        (conf / "bblayers.conf").write_text(
            f'BBPATH = "{self.topdir}"\nBBFILES ?= ""\nBBLAYERS = "{" ".join(map(str, layers))}"\n')
        lines = [f'BBFILES += "{path}/*/*.bb {path}/*.bb"' for path in map(os.path.abspath, recipe_directories)]
        (conf / "local.conf").write_text("\n".join([*local, *lines, ""]))

    def _import(self):
        # The wheel lacks the hash equivalence and PR servers, which only a full BitBake talks to.
        for name in ("hashserv", "hashserv.client", "prserv"):
            sys.modules.setdefault(name, types.ModuleType(name))
        import bb
        import bb.build
        import bb.checksum
        import bb.cookerdata
        import bb.event
        import bb.fetch2
        import bb.parse
        import bb.siggen

        logger = logging.getLogger("BitBake")
        logger.addHandler(self.messages)
        logger.propagate = False
        # Without a user interface BitBake would print every event again when Python exits.
        sink = types.SimpleNamespace(event=types.SimpleNamespace(send=lambda event: None))
        bb.event.register_UIHhandler(sink, mainui=True)
        return bb

    def recipe_files(self):
        """Return ``[(recipe file, its bbappend files)]`` of BBFILES, each sorted."""
        found = []
        for pattern in (self.d.getVar("BBFILES") or "").split():
            found += [path for path in sorted(glob.glob(pattern)) if path not in found]
        mask = [re.compile(expression) for expression in (self.d.getVar("BBMASK") or "").split()]
        found = [path for path in found if not any(expression.search(path) for expression in mask)]
        appends = [path for path in found if path.endswith(".bbappend")]
        return [
            (path, [append for append in appends if _appends_to(append, path)])
            for path in found if path.endswith(".bb")
        ]

    def parse(self, file, appends=()):
        """Parse one recipe; return ``(data store, reason it was skipped or None)``.

        Raises BuildError with file and line.
        """
        import bb

        self.messages.clear()
        layer = next((name for name, regex in self._layers() if regex.match(file)), None)
        try:
            variants = self._builder.parseRecipeVariants(file, list(appends), mc="", layername=layer)
            d = variants[""]
        except bb.parse.SkipRecipe as err:
            raise BuildError(f"{_short(file)}: {err}") from None
        except (Exception, SystemExit) as err:
            text = sentence(self.messages.errors, err)
            raise BuildError(text if _short(file) in text else f"{_short(file)}: {text}") from None
        return d, d.getVar("__SKIPPED", False)

    def _layers(self):
        return [
            (name, re.compile(self.d.getVar(f"BBFILE_PATTERN_{name}") or "^$"))
            for name in (self.d.getVar("BBFILE_COLLECTIONS") or "").split()
        ]

    @contextlib.contextmanager
    def speaking(self, subject):
        """Turn whatever BitBake's library raises in the body into a BuildError about ``subject``."""
        self.messages.clear()
        try:
            yield
        except BuildError:
            raise
        except (Exception, SystemExit) as err:
            raise BuildError(f"{subject}: {sentence(self.messages.errors, err)}") from None

    def run_task(self, file, d, task):
        """Run one task of a parsed recipe. Raises BuildError with the first error that it logged."""
        import bb

        # The builder keeps a stamp for each recipe; BitBake's own need the caches of its server.
        d.setVarFlag(task, "selfstamp", "1")
        self.messages.clear()
        if bb.build.exec_task(file, task, d):
            log = os.path.join(d.getVar("T"), f"log.{task}")
            errors = [text for text in self.messages.errors if not text.startswith("No such task")]
            reason = sentence(errors) if errors else "it failed"
            raise BuildError(f"{d.getVar('PN')}, {task}: {_shell_reason(reason, log)} (log: {log})")


def _shell_reason(reason, log):
    """For a shell function that failed return what it said last; BitBake says only that it failed."""
    if not reason.startswith("Execution of "):
        return reason
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError:
        return reason
    noise = re.compile(r"(WARNING|ERROR|DEBUG|NOTE): |\t?#\d")
    said = [line.strip() for line in lines if line.strip() and not noise.match(line)]
    return said[-1] if said else reason


def _appends_to(append, recipe):
    wanted = os.path.basename(append).removesuffix(".bbappend")
    name = os.path.basename(recipe).removesuffix(".bb")
    return name.startswith(wanted.partition("%")[0]) if "%" in wanted else name == wanted


def assignment(name, value):
    """Return the line of a configuration file that sets ``name`` to ``value``, taken literally.

    Raises BuildError for a name that is none and a value that BitBake cannot quote.
    """
    if not VARIABLE.match(name):
        raise BuildError(f"'{name}' is not the name of a BitBake variable")
    if "\n" in value or value.endswith("\\") or ('"' in value and "'" in value):
        raise BuildError(f"the value of {name} cannot be written in a BitBake file: "
                         "it has a line break, both kinds of quotes, or ends with a backslash")
    quote = "'" if '"' in value else '"'
    return f"{name} = {quote}{value}{quote}"
