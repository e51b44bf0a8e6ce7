# SPDX-License-Identifier: MIT
"""Run commands in the guest over its serial console, with an exit status and the exact output of each.

At the login shell's prompt one line starts a small loop in ``sh`` that reads requests: neither echo, line
editing nor a prompt gets between us and the command. Lines to the loop hold printable ASCII only:

    +TEXT   add TEXT, in which bytes may be written as \\0ooo, to the command; answered with ``NONCE more``
    .NUMBER run the command; answered with ``NONCE start NUMBER``, the output, ``NONCE end NUMBER STATUS``
    q       leave the loop, back to the login shell

NONCE is random for each login, so that no output is taken for an answer.
"""

import base64
import re
import secrets
import shlex
import time
from dataclasses import dataclass

from pexpect.exceptions import EOF, TIMEOUT

from .console import PANIC
from .errors import BootError, CommandError, ConsoleError, EmulatorError

_LINE = 2000  # characters of a request: a terminal takes 4095 in one line
_COMMAND_LIMIT = 100_000  # bytes; Linux takes 131071 in one argument
_FILE_PIECE = 24_000  # bytes of a file in one command

# A prompt of root's shell: something without "#", then "# ", perhaps with colours or boot messages after it.
_PROMPT = re.compile(rb"(?:^|[\r\n])[^\r\n#]{0,120}# ")
_LOST = re.compile(
    rb"You are in (?:emergency|rescue) mode|Press Enter for (?:maintenance|system maintenance)"
    rb"|Give root password for maintenance|\(initramfs\) "
)

_LOOP = r"""
trap : INT QUIT
stty -echo -opost cols 1000 rows 500
exec 2>/dev/null
dmesg -n 1
[ -d /run/systemd/system ] && kill -55 1
export TERM=dumb PAGER=cat SYSTEMD_PAGER=cat
N=@FIRST@""@SECOND@ C=
printf "\n%s ready\n" $N
while IFS= read -r L; do
case $L in
+*) C=$C${L#+}; printf "\n%s more\n" $N;;
.*) printf "\n%s start %s\n" $N ${L#.}
(trap - INT QUIT; exec sh -c "$(printf %b "$C")") </dev/null 2>&1
printf "\n%s end %s %s\n" $N ${L#.} $?
C=;;
q) break;;
esac
done
stty sane
"""


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left: ``raw``, its output and error together (bytes), and ``exit_status``."""

    raw: bytes
    exit_status: int

    @property
    def stdout(self):
        """The output as text; bytes that are not UTF-8 become U+FFFD."""
        return self.raw.decode(errors="replace")


def encode(command):
    """Return ``command`` (text) as printable ASCII for printf's %b.

    Raises EmulatorError when no shell can take it: a NUL in it, or too long.
    """
    data = command.encode()
    if b"\0" in data:
        raise EmulatorError("a command must not hold a NUL character")
    if len(data) > _COMMAND_LIMIT:
        raise EmulatorError(f"a command of {len(data)} bytes is too long: upload it as a file and run that")
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 0x5C else f"\\0{byte:03o}" for byte in data)


class Shell:
    """Commands over ``console``; ``timeout_scale`` multiplies every time limit given here."""

    def __init__(self, console, timeout_scale=1.0):
        self._console = console
        self._scale = timeout_scale
        self._nonce = None
        self._count = 0

    @property
    def ready(self):
        """Whether ``login`` has succeeded, and the console was not lost or released since."""
        return self._nonce is not None

    def login(self, timeout):
        """Wait up to ``timeout`` seconds (scaled) for root's prompt and make the shell ready for ``run``.

        Raises BootError, with the console's last lines, when the guest panics, ends up in an emergency
        shell, or reaches no prompt in time.
        """
        self._nonce = None
        deadline = time.monotonic() + timeout * self._scale
        patterns = [PANIC, _LOST, _PROMPT]
        while True:
            try:
                seen = self._console.expect(patterns, timeout=max(0, deadline - time.monotonic()))
            except TIMEOUT:
                limit = f"{timeout * self._scale:.0f} s"
                raise BootError(f"the guest reached no prompt within {limit}", self._console.tail()) from None
            except EOF:
                raise BootError("QEMU ended before the guest reached a prompt", self._console.tail()) from None
            if seen == 0:
                self._console.wait_for_text(b"end Kernel panic", 3 * self._scale)
                raise BootError("the guest's kernel panicked", self._console.last_words())
            if seen == 1:
                raise BootError("the guest came up in an emergency shell", self._console.tail(40))
            if self._start_loop(deadline):
                return

    def _start_loop(self, deadline):
        first, second = secrets.token_hex(6), secrets.token_hex(6)
        script = _LOOP.strip().replace("@FIRST@", first).replace("@SECOND@", second)
        # One line: an interactive shell would show a continuation prompt for each further one.
        for line_end in (" in", "do", ";;"):
            script = script.replace(f"{line_end}\n", f"{line_end} ")
        script = script.replace("\n", "; ")
        try:
            self._console.send(f" sh -c {shlex.quote(script)}\n".encode())
            wait = min(15 * self._scale, max(1, deadline - time.monotonic()))
            self._console.expect_exact(f"\n{first}{second} ready\n".encode(), timeout=wait)
        except TIMEOUT:
            return False
        except EOF:
            raise BootError("QEMU ended at the guest's prompt", self._console.tail()) from None
        self._nonce = (first + second).encode()
        return True

    def run(self, command, timeout=30, check=True):
        """Run ``command`` with a shell of its own, standard input empty, and return a CommandResult.

        ``command`` is a text for ``sh -c``; nothing of it (directory, variables) carries over to the next.
        After ``timeout`` seconds (scaled) it is interrupted as by Ctrl-C; one that ignores that takes the
        console with it, until the machine is reset or started again. Raises CommandError for a status other than 0
        when ``check``, ConsoleError when it does not end in time or the guest is gone.
        """
        self._need_ready()
        deadline = time.monotonic() + timeout * self._scale
        self._count += 1
        number = str(self._count).encode()
        try:
            self._begin(command, number, deadline)
            result = self._finish(number, deadline)
        except TIMEOUT:
            self._interrupt(number)
            limit = f"{timeout * self._scale:.0f} s"
            raise ConsoleError(
                f"'{command[:200]}' did not end within {limit} in the guest; the console's last lines:\n"
                + self._console.tail()
            ) from None
        except EOF:
            self._nonce = None
            raise ConsoleError(f"the guest ended while '{command[:200]}' ran in it") from None
        if check and result.exit_status:
            raise CommandError(command, result)
        return result

    def give_up(self, command, timeout=30):
        """Have the guest begin a command that ends the console, and do not wait for an answer, which may never come.

        ``login`` is needed after it. Raises ConsoleError when the command does not begin within ``timeout`` seconds
        (scaled).
        """
        self._need_ready()
        self._count += 1
        try:
            self._begin(command, str(self._count).encode(), time.monotonic() + timeout * self._scale)
        except (TIMEOUT, EOF):
            raise ConsoleError(f"'{command[:200]}' did not begin in the guest; the console's last lines:\n"
                               + self._console.tail()) from None
        finally:
            self._nonce = None

    def _need_ready(self):
        if not self.ready:
            raise ConsoleError("nobody is logged in on the guest's console")

    def _begin(self, command, number, deadline):
        encoded = encode(command)
        for start in range(0, len(encoded), _LINE):
            piece = encoded[start:start + _LINE]
            self._console.send(b"+" + piece.encode() + b"\n")
            self._answer(b"more\n", deadline)
        self._console.send(b"." + number + b"\n")
        self._answer(b"start " + number + b"\n", deadline)

    def _answer(self, what, deadline):
        self._console.expect_exact(b"\n" + self._nonce + b" " + what, timeout=max(0, deadline - time.monotonic()))

    def _finish(self, number, deadline):
        while True:
            panicked, known = self._console.panic is not None, len(self._console.buffer)
            limit = deadline - time.monotonic()
            step = min(limit, self._scale)
            try:
                self._console.expect_exact(b"\n" + self._nonce + b" end " + number + b" ", timeout=max(0, step))
                break
            except TIMEOUT:
                # After a panic there is silence; a command that merely prints such a line goes on or ends.
                if panicked and len(self._console.buffer) == known:
                    self._nonce = None
                    message = f"the guest's kernel panicked; its last words:\n{self._console.last_words()}"
                    raise ConsoleError(message) from None
                if limit <= step:
                    raise
        raw = self._console.before
        self._console.panic = None
        self._console.expect(rb"(\d+)\n", timeout=self._scale * 5)
        return CommandResult(raw, int(self._console.match[1]))

    def _interrupt(self, number):
        end = re.compile(b"\n" + self._nonce + b" end " + number + rb" \d+\n")
        try:
            for key in (b"\x03", b"\x03", b"\x1c"):
                self._console.send(key)
                if self._console.expect([end, TIMEOUT], timeout=2 * self._scale) == 0:
                    return
        except EOF:
            pass
        self._nonce = None

    def release(self):
        """Give the console back to the login shell, as before ``login``, for a person to use."""
        if self.ready:
            self._console.send(b"q\n")
            self._nonce = None

    def upload(self, data, path, mode=0o644, timeout=60):
        """Write ``data`` (bytes) to the file ``path`` of the guest; ``timeout`` as in ``run``, for each 24 kB.

        The file appears whole or not at all. Meant for small files: a console moves some 50 kB a second.
        """
        quoted = shlex.quote(str(path))
        temporary = shlex.quote(f"{path}.{secrets.token_hex(4)}.part")
        try:
            self.run(f": >{temporary}", timeout)
            for start in range(0, len(data), _FILE_PIECE):
                piece = base64.b64encode(data[start:start + _FILE_PIECE]).decode()
                self.run(f"printf %s {piece} | base64 -d >>{temporary}", timeout)
            self.run(
                f'[ "$(wc -c <{temporary})" -eq {len(data)} ] && chmod {mode:o} {temporary} && mv {temporary} {quoted}',
                timeout,
            )
        except CommandError:
            self.run(f"rm -f {temporary}", timeout, check=False)
            raise

    def download(self, path, timeout=60):
        """Return the contents (bytes) of the file ``path`` of the guest; ``timeout`` as in ``run``."""
        # Base64 rather than the bytes: whatever else writes to the console meanwhile would go unnoticed there.
        encoded = self.run(f"base64 <{shlex.quote(str(path))}", timeout).raw
        try:
            return base64.b64decode(b"".join(encoded.split()), validate=True)
        except ValueError as err:
            raise ConsoleError(f"what came of {path} over the console is damaged") from err
