# SPDX-License-Identifier: MIT
"""Parse and dry run of a combination, both from one run of BitBake where both are asked for."""

import time

from layercheck.bitbakelog import Reader
from layercheck.errors import CheckError
from layercheck.process import last_lines
from layercheck.results import Result, Status

IMAGE = "composeapps-image"
_MESSAGES_SHOWN = 8
_ERRORS = ("ERROR", "FATAL")


def run(context, combination, checks):
    """Check that ``combination`` parses ("parse" in ``checks``) and that its image is planned ("dry-run").

    Returns a Result for each of the ``checks``. The repositories must have been found reachable.
    """
    log = context.directory / "log" / f"bitbake-{combination.name}.log"
    started = time.monotonic()
    try:
        with context.progress.step(f"checking out {combination.name}"):
            context.kas.checkout(combination, log.with_name(f"checkout-{combination.name}.log"))
    except CheckError as err:
        status = Status.UNREACHED if _is_about_fetching(str(err)) else Status.FAILED
        return [Result(check, combination.name, status, "the layers cannot be checked out",
                       time.monotonic() - started, problems=[str(err)]) for check in checks]
    if "parse" in checks:
        # BitBake warns about a recipe when it parses it, not when it takes it from its cache, and counts then only.
        for path in context.kas.build_directory(combination).glob("tmp*/cache/bb_cache.dat*"):
            path.unlink()
    command = f"bitbake --dry-run {IMAGE}" if "dry-run" in checks else "bitbake --parse-only"
    reader = Reader()
    with context.progress.step(f"{' and '.join(checks)}: {combination.name}"):
        status = context.kas.shell(combination, command, log, on_line=reader.line,
                                   on_tick=lambda: context.progress.detail(reader.reading.at))
    reading = reader.end()
    seconds = time.monotonic() - started
    judged = {"parse": judge_parse, "dry-run": judge_dry_run}
    results = [judged[check](reading, combination.name, context.ownership, status) for check in checks]
    for result in results:
        result.log = str(log)
        until = reading.parse_seconds or seconds
        result.seconds = until if result.check == "parse" else seconds - until
        if result.status != Status.PASSED and not result.problems:
            result.problems = [last_lines(log)]
    return results


def _is_about_fetching(sentence):
    return any(word in sentence for word in ("git clone", "git fetch", "not our ref", "unable to access", "fatal:"))


def judge_parse(reading, subject, ownership, status=0):
    """Return the Result of parsing: passed with no error and no warning that is about our layer.

    Arguments:
        reading: a bitbakelog.Reading of the run.
        subject: the combination's name.
        ownership: a bitbakelog.Ownership.
        status: BitBake's exit status; after a dry run it says nothing about parsing unless that did not end.
    """
    errors = reading.select(_ERRORS, during_parsing=True)
    warnings = reading.select(("WARNING",), during_parsing=True)
    ours = [text for text in warnings if ownership.owns(text)]
    parsed = reading.parsed
    if not parsed:
        return Result("parse", subject, Status.FAILED, f"BitBake gave up before the end (status {status})",
                      problems=_some(errors))
    # BitBake counts recipes that fail, and not, say, an append without a recipe.
    faults = max(parsed.errors, len(errors))
    counts = {"recipes": parsed.recipes, "skipped": parsed.skipped, "errors": faults,
              "warnings of ours": len(ours), "other warnings": len(warnings) - len(ours)}
    summary = (f"{parsed.recipes} recipes, {parsed.skipped} skipped, {_count(faults, 'error')}, "
               f"{_count(len(ours), 'warning')} of ours, {len(warnings) - len(ours)} of others")
    return Result("parse", subject, Status.FAILED if faults or ours else Status.PASSED, summary, counts=counts,
                  problems=_some(errors) + _some(ours))


def judge_dry_run(reading, subject, ownership, status=0):
    """Return the Result of a dry run: passed when every task was planned and no warning after parsing is about us.

    Arguments as for judge_parse.
    """
    errors = reading.select(_ERRORS, during_parsing=False)
    ours = [text for text in reading.select(("WARNING",), during_parsing=False) if ownership.owns(text)]
    counts = {"tasks": reading.tasks or 0, "warnings of ours": len(ours)}
    if status or reading.tasks is None or errors or "all succeeded" not in reading.outcome:
        return Result("dry-run", subject, Status.FAILED, f"{IMAGE} cannot be planned", counts=counts,
                      problems=_some(errors) + _some(ours))
    return Result("dry-run", subject, Status.FAILED if ours else Status.PASSED,
                  f"{reading.tasks} tasks of {IMAGE}, {_count(len(ours), 'warning')} of ours", counts=counts,
                  problems=_some(ours))


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(texts):
    more = len(texts) - _MESSAGES_SHOWN
    return texts[:_MESSAGES_SHOWN] + ([f"… and {more} more"] if more > 0 else [])
