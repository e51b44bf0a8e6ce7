# SPDX-License-Identifier: MIT
"""Parse and dry run of a combination, both from one run of BitBake where both are asked for."""

import time

from layercheck.bitbakelog import Reader
from layercheck.errors import CheckError
from layercheck.process import last_lines
from layercheck.results import Result, Status

IMAGE = "composeapps-image"
_MESSAGES_SHOWN = 8


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
        result.seconds = reading.parse_seconds if result.check == "parse" else seconds - reading.parse_seconds
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
        status: BitBake's exit status, which counts when it did not come to the end of parsing.
    """
    warnings = reading.select("WARNING")
    ours = [text for text in warnings if ownership.owns(text)]
    parsed = reading.parsed
    if not parsed:
        problems = _some(reading.select("ERROR", "FATAL"))
        return Result("parse", subject, Status.FAILED, f"BitBake gave up before the end (status {status})",
                      problems=problems)
    counts = {"recipes": parsed.recipes, "skipped": parsed.skipped, "errors": parsed.errors,
              "warnings of ours": len(ours), "other warnings": len(warnings) - len(ours)}
    summary = (f"{parsed.recipes} recipes, {parsed.skipped} skipped, {_count(parsed.errors, 'error')}, "
               f"{_count(len(ours), 'warning')} of ours, {_count(len(warnings) - len(ours), 'other')}")
    problems = _some(ours)
    if parsed.errors:
        problems += _some(reading.select("ERROR", "FATAL"))
    passed = not parsed.errors and not ours
    return Result("parse", subject, Status.PASSED if passed else Status.FAILED, summary, counts=counts,
                  problems=problems)


def judge_dry_run(reading, subject, _ownership, status=0):
    """Return the Result of a dry run; arguments as for judge_parse."""
    errors = reading.select("ERROR", "FATAL")
    if status or reading.tasks is None or errors or "all succeeded" not in reading.outcome:
        return Result("dry-run", subject, Status.FAILED, f"{IMAGE} cannot be planned", problems=_some(errors))
    return Result("dry-run", subject, Status.PASSED, f"{reading.tasks} tasks of {IMAGE}",
                  counts={"tasks": reading.tasks})


def _count(number, noun):
    return f"{number} {noun}" if number == 1 or noun == "other" else f"{number} {noun}s"


def _some(texts):
    more = len(texts) - _MESSAGES_SHOWN
    return texts[:_MESSAGES_SHOWN] + ([f"… and {more} more"] if more > 0 else [])
