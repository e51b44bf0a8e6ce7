# SPDX-License-Identifier: MIT
"""What a download tells while it runs: bars, lines, JSON, and a file that ``status`` reads.

Every Progress may be called from several threads. None of them ever fails a download: what
cannot be shown is left out.
"""

import collections
import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

from composeapps import beneath
from composeapps.oci.names import AppName
from composeapps.sizes import human_size


class Progress:
    """Takes note of nothing; the base of what does."""

    def expect(self, blobs, received=None):
        """Begin.

        Arguments:
            blobs: the app.Blobs that are to be fetched.
            received: {digest: bytes} of what is there of them already.
        """

    def advance(self, digest, count):
        """``count`` more bytes of a blob are there; less than 0 when bytes had to be thrown away."""

    def done(self, digest):
        """A blob is whole, verified and durable."""

    def retry(self, digest, reason, seconds):
        """A transfer broke off for ``reason`` and goes on after so many seconds."""

    def note(self, text):
        """Something else that a person may want to know, a line of text."""

    def close(self):
        """The download has ended, well or not."""


class Several(Progress):
    """Passes everything on to each of ``parts``."""

    def __init__(self, parts):
        self._parts = list(parts)

    def expect(self, blobs, received=None):
        for part in self._parts:
            part.expect(blobs, received)

    def advance(self, digest, count):
        for part in self._parts:
            part.advance(digest, count)

    def done(self, digest):
        for part in self._parts:
            part.done(digest)

    def retry(self, digest, reason, seconds):
        for part in self._parts:
            part.retry(digest, reason, seconds)

    def note(self, text):
        for part in self._parts:
            part.note(text)

    def close(self):
        for part in self._parts:
            part.close()


class _Tally(Progress):
    """Counts, and calls ``_show`` at most every ``interval`` seconds, under its lock.

    ``_blobs`` maps the digest of each expected Blob to it, ``_received`` to its bytes that are there;
    ``_of`` and ``_total`` are the sums of what is expected and of what is there.
    """

    interval = 1.0

    def __init__(self):
        self._lock = threading.RLock()
        self._blobs, self._received, self._finished = {}, {}, set()
        self._of = self._total = 0
        self._next = 0.0
        self._marks = collections.deque(maxlen=50)

    def expect(self, blobs, received=None):
        with self._lock:
            for blob in blobs:
                digest = blob.descriptor.digest
                if digest in self._blobs:
                    continue
                self._blobs[digest] = blob
                self._received[digest] = (received or {}).get(digest, 0)
                self._of += blob.descriptor.size
                self._total += self._received[digest]
            self._mark(time.monotonic())
            self._now()

    def advance(self, digest, count):
        with self._lock:
            if digest in self._received:
                self._received[digest] += count
                self._total += count
                self._due()

    def done(self, digest):
        with self._lock:
            if digest in self._blobs:
                missing = self._blobs[digest].descriptor.size - self._received[digest]
                self._received[digest] += missing
                self._total += missing
                self._finished.add(digest)
                self._due()

    def rate(self):
        """Return the bytes a second of the last few seconds."""
        with self._lock:
            now = time.monotonic()
            while len(self._marks) > 2 and now - self._marks[0][0] > 5:
                self._marks.popleft()
            if not self._marks:
                return 0.0
            since, before = self._marks[0]
            return max(self._total - before, 0) / max(now - since, 0.001)

    def _mark(self, now):
        if not self._marks or now - self._marks[-1][0] >= 0.2:
            self._marks.append((now, self._total))

    def _due(self):
        now = time.monotonic()
        if now >= self._next:
            self._mark(now)
            self._now()

    def _now(self):
        self._next = time.monotonic() + self.interval
        # A terminal that went away or a full disk is no reason to stop a download.
        with contextlib.suppress(OSError, ValueError):
            self._show()

    def _show(self):
        raise NotImplementedError


class Bars(_Tally):
    """A bar for each blob and one for the whole, on a terminal.

    Arguments:
        stream: the terminal, a text file.
        title: what is fetched, in a word or two.
    """

    interval = 0.1

    def __init__(self, stream, title=""):
        super().__init__()
        self._stream, self._title = stream, title
        self._drawn = 0
        self._notes = {}

    def retry(self, digest, reason, seconds):
        with self._lock:
            self._notes[digest] = f"{reason}; again in {seconds:.0f} s"
            self._due()

    def advance(self, digest, count):
        with self._lock:
            if count > 0:
                self._notes.pop(digest, None)
            super().advance(digest, count)

    def note(self, text):
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(f"{self._home()}{text}\n")
            self._drawn = 0
            if self._blobs:
                self._show()

    def close(self):
        with self._lock:
            if self._blobs:
                self._now()

    def _home(self):
        """Return what brings the cursor to the first drawn line and clears the rest of the screen."""
        return (f"\x1b[{self._drawn}A" if self._drawn else "") + "\r\x1b[J"

    def _show(self):
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            width, height = 80, 24
        rows = sorted(self._blobs, key=lambda digest: -self._blobs[digest].descriptor.size)
        room = max(height - 2, 1)
        if len(rows) > room:
            # Those at work are what one wants to see; the order stays.
            busy = [d for d in rows if d not in self._finished and self._received[d]]
            shown = set((busy + [d for d in rows if d not in busy and d not in self._finished] + rows)[:room])
            rows = [digest for digest in rows if digest in shown]
        lines = [self._line(digest, width) for digest in rows]
        rate = self.rate()
        left = f", {_duration((self._of - self._total) / rate)} left" if rate and self._total < self._of else ""
        lines.append(_bar(self._title or "total", self._total, self._of, width, f"{human_size(rate)}/s{left}"))
        self._stream.write(self._home() + "".join(line + "\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def _line(self, digest, width):
        blob = self._blobs[digest]
        label = f"{blob.ref.path.rpartition('/')[2]} {digest.partition(':')[2][:12]}"
        received, size = self._received[digest], blob.descriptor.size
        note = self._notes.get(digest, "done" if digest in self._finished else "")
        return _bar(label, received, size, width, note)


class Lines(_Tally):
    """A line of text now and then, for a log."""

    interval = 10.0

    def __init__(self, stream, title=""):
        super().__init__()
        self._stream, self._title = stream, f"{title}: " if title else ""

    def retry(self, digest, reason, seconds):
        self.note(f"blob {digest[:19]}: {reason}; again in {seconds:.0f} s")

    def note(self, text):
        with self._lock, contextlib.suppress(OSError, ValueError):
            print(self._title + text, file=self._stream, flush=True)

    def _show(self):
        if self._of:
            percent = self._total * 100 // self._of
            self.note(f"{human_size(self._total)} of {human_size(self._of)} are here ({percent} %)")


class JsonLines(_Tally):
    """One JSON object a line.

    ``{"event": "expect", "bytes", "of", "blobs": [{"digest", "received", "size"}]}``, then
    ``progress`` (with "bytes", "of", "rate" and the blobs at work), ``done`` and ``retry`` (of a
    "digest"), ``note`` (a "text").
    """

    interval = 0.5

    def __init__(self, stream, uri=""):
        super().__init__()
        self._stream, self._uri, self._told = stream, uri, False

    def done(self, digest):
        with self._lock:
            super().done(digest)
            self._tell("done", digest=digest)

    def retry(self, digest, reason, seconds):
        self._tell("retry", digest=digest, reason=reason, seconds=round(seconds, 1))

    def note(self, text):
        self._tell("note", text=text)

    def _tell(self, event, **values):
        line = json.dumps({"event": event, **({"uri": self._uri} if self._uri else {}), **values})
        with self._lock, contextlib.suppress(OSError, ValueError):
            print(line, file=self._stream, flush=True)

    def _show(self):
        if self._told:
            busy = [d for d in self._blobs if d not in self._finished and self._received[d]]
            self._tell("progress", bytes=self._total, of=self._of, rate=round(self.rate()), blobs=self._rows(busy))
        else:
            self._told = True
            self._tell("expect", bytes=self._total, of=self._of, blobs=self._rows(self._blobs))

    def _rows(self, digests):
        return [{"digest": d, "received": self._received[d], "size": self._blobs[d].descriptor.size} for d in digests]


class Snapshot(_Tally):
    """Keeps ``<state_dir>/progress/<app>.json`` up to date for whoever asks meanwhile.

    ``{"uri", "bytes", "of", "blobs": [{"digest", "received", "size"}], "rate", "pid", "updated"}``:
    bytes, bytes a second, seconds since 1970. It is removed at the end; one whose process is gone
    is stale.

    Arguments:
        state_dir: the directory of the agent's files.
        ref: the app's pinned Reference.
    """

    def __init__(self, state_dir, ref):
        super().__init__()
        self._path, self._uri = snapshot_path(state_dir, ref.app_name), str(ref)

    def close(self):
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _show(self):
        value = {
            "uri": self._uri, "bytes": self._total, "of": self._of,
            "blobs": [{"digest": digest, "received": self._received[digest], "size": blob.descriptor.size}
                      for digest, blob in self._blobs.items()],
            "rate": round(self.rate()), "pid": os.getpid(), "updated": round(time.time(), 1),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".tmp-{self._path.name}")
        temporary.write_text(json.dumps(value) + "\n")
        temporary.rename(self._path)


def snapshot_path(state_dir, name):
    """Return the file in which the progress of app ``name`` is kept."""
    return Path(state_dir) / "progress" / f"{AppName(name).file_stem}.json"


def read_snapshot(state_dir, name):
    """Return what a Snapshot of app ``name`` says now, or None when nobody fetches it. Takes no lock."""
    try:
        value = json.loads(beneath.read_regular(snapshot_path(state_dir, name)))
        os.kill(int(value["pid"]), 0)
    except PermissionError:
        return value
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return value


def choose(as_json=False, state_dir=None, ref=None, stream=None, quiet=False):
    """Return the Progress that suits where the output goes.

    Arguments:
        as_json: JSON lines on standard output.
        state_dir, ref: keep a Snapshot there for the app ``ref``; none by default.
        stream: where people read, standard error by default; bars when it is a terminal.
        quiet: nothing for people.
    """
    stream = sys.stderr if stream is None else stream
    title = ref.app_name if ref else ""
    parts = []
    if as_json:
        parts.append(JsonLines(sys.stdout, str(ref) if ref else ""))
    elif not quiet:
        parts.append(Bars(stream, title) if stream.isatty() else Lines(stream, title))
    if state_dir is not None and ref is not None:
        parts.append(Snapshot(state_dir, ref))
    return Several(parts)


def _bar(label, received, size, width, note):
    """Return one line of at most ``width`` - 1 columns."""
    label = label[:24].ljust(24)
    figures = f"{human_size(received):>8} of {human_size(size):<8}"
    bar_width = min(max(width - len(label) - len(figures) - 30, 0), 40)
    filled = bar_width if received >= size else bar_width * received // max(size, 1)
    bar = f"[{'#' * filled}{' ' * (bar_width - filled)}] " if bar_width >= 5 else ""
    return f"{label} {bar}{figures} {note}"[:max(width - 1, 1)].rstrip()


def _duration(seconds):
    seconds = int(seconds)
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
