# SPDX-License-Identifier: MIT
"""The command line of scripts/check-layer."""

import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path

from composeapps import durable
from composeapps.cli.parser import Parser
from layercheck import builds, combinations, demoapps, lint, oeqa, patching, reach, report, schema, yocto
from layercheck.bitbakelog import Ownership
from layercheck.context import Context
from layercheck.errors import CheckError
from layercheck.kasrun import Kas
from layercheck.progress import Progress
from layercheck.reach import Prober
from layercheck.results import Record, Result, Status, fingerprint

CHECKS = ("lint", "schema", "parse", "dry-run", "patch", "yocto", "oeqa", "disk")
HELP = {
    "examples": (
        ("scripts/check-layer --only lint,schema", "what needs no layers"),
        ("scripts/check-layer --combination qemux86-64", "everything, for one combination"),
        ("scripts/check-layer --mirror https://git.openembedded.org/bitbake=/srv/git/bitbake.git",
         "one repository from elsewhere; --mirrors /srv/git finds each by its name"),
        ("scripts/check-layer --combination lmp --with my-overrides.yml", "with a kas file of one's own at the end"),
        ("scripts/check-layer --only disk --wic ../openembedded-core/scripts/wic",
         "the disk with partitions, by wic and by the fast lane"),
        ("scripts/check-layer --execute",
         "real tasks of the layer's recipes, to packages and an image that cannot boot"),
    ),
    "details": (
        "The checks, all of them unless --only says which; disk only with --wic, or when it is named:",
        {
            "lint": "oelint-adv over the recipes, appends, classes and configuration of the layer",
            "schema": "kas joins the files of each combination and finds no fault with them",
            "parse": "BitBake parses every recipe of every layer: no error, no warning about our layer",
            "dry-run": "BitBake plans every task of composeapps-image",
            "patch": "BitBake fetches docker-moby's source and applies the layer's patches to it, without fuzz",
            "yocto": "openembedded-core's yocto-check-layer, with the test that no signature changes",
            "oeqa": "the layer's oeqa cases under openembedded-core's oeqa, in the newest image of scripts/build-image "
                    "in QEMU",
            "disk": "wic makes the disk of composeapps-disk.wks.in as the fast lane does, with stores of 1 MB to 3 GB; "
                    "takes 20 GB of disk for a while",
        },
        "Nothing is downloaded but layers and docker-moby's source, nothing is built. A parse takes minutes, a dry "
        "run a quarter of an hour, yocto longer than both; --resume leaves out what passed with the same files before.",
    ),
    "exits": {0: "all passed", 1: "something failed", 2: "wrong usage",
              3: "nothing failed, but something could not be reached", 130: "interrupted"},
    "environment": ("KAS_REPO_REF_DIR", "KAS_PREMIRRORS", "KAS_CLONE_DEPTH", "GITCONFIG_FILE", "PIP_INDEX_URL",
                    "COMPOSEAPPS_BUILD", "NO_COLOR"),
}


def make_parser():
    """Return the Parser of the command."""
    parser = Parser("scripts/check-layer", "Check the layer on real OpenEmbedded, as far as its layers can be had.")
    parser.describe(**HELP)
    parser.add_argument("--list", action="store_true", help="list the combinations and stop")
    parser.add_argument("--only", metavar="CHECKS", help="checks, separated by commas")
    parser.add_argument("--combination", action="append", default=[], metavar="NAME", help="may be given again")
    parser.add_argument("--execute", action="store_true",
                        help="run the layer's own recipes to packages and an image, with stand-ins for what needs "
                             "a compiler; by itself unless --only names more")
    parser.add_argument("--resume", action="store_true", help="leave out what passed before with the same files")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure; otherwise all is checked")
    parser.add_argument("--with", action="append", default=[], metavar="FILE.yml", dest="extra",
                        help="a kas file for the end of each combination; may be given again")
    parser.add_argument("--mirror", action="append", default=[], metavar="URL=PLACE",
                        help="take the repository from a path or another URL; may be given again")
    parser.add_argument("--mirrors", metavar="DIR", help="take repositories from DIR that are there by their names")
    parser.add_argument("--layers", metavar="DIR", help="where kas checks layers out (build/layercheck/layers)")
    parser.add_argument("--wic", metavar="PROGRAM", help="wic, for the check of the disk (default: the one on PATH)")
    parser.add_argument("--timeout", type=int, default=reach.TIMEOUT_SECONDS, metavar="SECONDS",
                        help="how long a repository may take to answer (%(default)s)")
    parser.common.add_argument("--json", nargs="?", const="-", metavar="FILE",
                               help="write JSON to FILE, or standard output")
    parser.common.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def parse(argv):
    """Return the parsed arguments; ends the process with status 2 for bad ones."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    alone = arguments.execute and not arguments.only
    usual = [name for name in CHECKS if name != "disk" or arguments.wic]
    arguments.checks = [] if alone else (arguments.only or ",".join(usual)).split(",")
    for name in arguments.checks:
        if name not in CHECKS:
            parser.error(f"there is no check '{name}': there are {', '.join(CHECKS)}")
    for mirror in arguments.mirror:
        url, _, place = mirror.partition("=")
        if not url or not place or ("://" not in place and not os.path.isdir(place)):
            parser.error(f"--mirror takes URL=PLACE with a directory or another URL, not '{mirror}'")
    if arguments.mirrors and not os.path.isdir(arguments.mirrors):
        parser.error(f"--mirrors takes a directory, not '{arguments.mirrors}'")
    if arguments.timeout < 1:
        parser.error("--timeout takes a number of seconds from 1")
    return arguments


class Run:
    """One run of the command.

    Arguments:
        arguments: from parse.
        context: a Context.
        chosen: the Combinations.
    """

    def __init__(self, arguments, context, chosen):
        self.arguments, self.context, self.chosen = arguments, context, chosen
        self.results, self.layers = [], {}
        self._configs = {}
        self._record = Record(context.directory / "results.json")
        self._extra = [Path(path).read_text() for path in arguments.extra]

    def everything(self):
        """Carry out all that was asked for."""
        checks = self.arguments.checks
        if "lint" in checks:
            self._one("lint", self.context.layer.name, self._inputs(), lambda: [lint.run(self.context)])
        for combination in self.chosen if "schema" in checks else []:
            self._one("schema", combination.name, self._inputs(combination),
                      lambda combination=combination: [schema.run(self.context, combination)])
        building = [name for name in ("parse", "dry-run") if name in checks]
        base = self.chosen[0] if {"patch", "yocto", "oeqa"} & set(checks) else None
        wanted = [*(self.chosen if building else []), *([base] if base else [])]
        if self.arguments.execute:
            # Needs more of pyproject.toml's extras than the other checks.
            from layercheck import execute

            wanted.append(execute.COMBINATION)
        self._look(wanted)
        for combination in self.chosen if building else []:
            self._build(combination, building)
        for check, module in (("patch", patching), ("yocto", yocto), ("oeqa", oeqa)):
            if check in checks and self._available(base, [check], self.context.layer.name):
                self._one(check, self.context.layer.name, self._inputs(base),
                          lambda module=module: [module.run(self.context, base)])
        if "disk" in checks:
            # Needs the fast lane, which takes the place of BitBake's modules.
            from layercheck import wicdisk

            for result in wicdisk.run(self.context, self.arguments.wic):
                self._add(result, "")
        if self.arguments.execute and self._available(execute.COMBINATION, ["execute"], self.context.layer.name):
            for result in execute.run(self.context):
                self._add(result, "")

    def _look(self, wanted):
        """Find out which repositories can be had, for all combinations at once."""
        for combination in dict.fromkeys(wanted):
            # What kas refuses is said when the combination's turn comes.
            with contextlib.suppress(CheckError):
                self._configs[combination.name] = self.context.kas.dump(combination)
        repositories = {name: reach.repositories(config) for name, config in self._configs.items()}
        urls = {repository.url for found in repositories.values() for repository in found}
        mirrors = reach.mirrors_in(self.arguments.mirrors, urls) if self.arguments.mirrors else {}
        mirrors.update(dict(mirror.split("=", 1) for mirror in self.arguments.mirror))
        self.context.kas.use_mirrors(mirrors)
        if not urls:
            return
        with self.context.progress.step(f"looking for {len(urls)} repositories"):
            self.context.prober.look([repository for found in repositories.values() for repository in found])
        self.layers = {name: self.context.prober.look(found) for name, found in repositories.items()}

    def _available(self, combination, checks, subject):
        """Tell whether the layers of ``combination`` can be had; otherwise add a Result to each check that says why."""
        if combination.name not in self._configs:
            failed = schema.run(self.context, combination)
            for check in checks:
                self._add(Result(check, subject, Status.FAILED, failed.summary, problems=failed.problems), "")
            return False
        missing = [found.sentence() for found in self.layers[combination.name] if found.problem]
        for check in checks if missing else []:
            self._add(Result(check, subject, Status.UNREACHED, f"{len(missing)} of its repositories cannot be reached",
                             problems=missing), "")
        return not missing

    def _build(self, combination, checks):
        if not self._available(combination, checks, combination.name):
            return
        inputs = self._inputs(combination)
        if self.arguments.resume:
            known = [self._record.passed(check, combination.name, inputs) for check in checks]
            if all(known):
                for result in known:
                    self._add(result, inputs)
                return
        try:
            if demoapps.PART in combination.parts:
                demoapps.generate(self.context)
            results = builds.run(self.context, combination, checks)
        except CheckError as err:
            results = [Result(check, combination.name, Status.UNREACHED, "the demo apps cannot be had",
                              problems=[str(err)]) for check in checks]
        for result in results:
            self._add(result, inputs)

    def _one(self, check, subject, inputs, work):
        known = self._record.passed(check, subject, inputs) if self.arguments.resume else None
        for result in [known] if known else work():
            self._add(result, inputs)

    def _add(self, result, inputs):
        self.results.append(result)
        self.context.progress.report(result)
        if inputs and not result.reused:
            self._record.add(result, inputs)
        if self.arguments.stop and result.status == Status.FAILED:
            raise _Stopped

    def _inputs(self, combination=None):
        """Return the fingerprint of what a check depends on: our layer and, for a combination, its files and layers."""
        paths = ["meta-composeapps", lint.CONFIGURATION]
        if not combination:
            return fingerprint(self.context.top, paths)
        paths += [*combination.files, *(f"kas/{path.name}" for path in (self.context.top / "kas").glob("*.lock.yml"))]
        if demoapps.PART in combination.parts:
            paths += ["conf/apps", "conf/demo"]
        revisions = [f"{found.repository.name}={found.revision}" for found in self.layers.get(combination.name, [])]
        return fingerprint(self.context.top, paths, *self._extra, *sorted(revisions))


class _Stopped(Exception):
    """Something failed and --stop was given."""


@contextlib.contextmanager
def _alone(directory):
    """Hold the lock of ``directory``: there is one BitBake at a time, and one writer of the record."""
    durable.make_directories(directory)
    with open(directory / "lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckError(f"another check-layer is at work in {directory}: wait for it to end") from None
        yield


def _terminated(_number, _frame):
    raise KeyboardInterrupt


def main(argv, top, build):
    """Run the command; ``top`` is the repository, ``build`` the directory for products. Returns the exit status."""
    arguments = parse(argv)
    if arguments.list:
        for combination in combinations.COMBINATIONS:
            print(f"{combination.name:16} {':'.join(combination.files)}\n{'':16} {combination.proves}")
        return 0
    signal.signal(signal.SIGTERM, _terminated)
    progress = Progress(quiet=arguments.quiet)
    directory = Path(build).resolve() / "layercheck"
    layers = Path(arguments.layers or directory / "layers").resolve()
    try:
        chosen = combinations.select(arguments.combination)
        with _alone(directory), Kas(top, directory, layers, arguments.extra) as kas:
            context = Context(Path(top), directory, Path(build).resolve(), kas,
                              Prober(kas.environment, layers, arguments.timeout),
                              Ownership(Path(top) / "meta-composeapps"), progress)
            run = Run(arguments, context, chosen)
            with contextlib.suppress(_Stopped):
                run.everything()
    except (CheckError, OSError) as err:
        print(f"check-layer: {err}", file=sys.stderr)
        return 2 if isinstance(err, CheckError) else 1
    except KeyboardInterrupt:
        print("check-layer: interrupted; --resume goes on with what is left", file=sys.stderr)
        return 130
    return _conclude(arguments, run, top)


def _conclude(arguments, run, top):
    to_stdout = arguments.json == "-"
    report.show(run.results, arguments.extra, sys.stderr if to_stdout else sys.stdout)
    if arguments.json:
        data = report.document(run.results, top, arguments.extra, run.layers)
        if to_stdout:
            report.write_json(data, sys.stdout)
        else:
            with open(arguments.json, "w") as stream:
                report.write_json(data, stream)
    return report.exit_status(run.results)
