# SPDX-License-Identifier: MIT
"""Connect a person's terminal to the guest's console."""

import os
import select
import shutil
import termios
import tty

from pexpect.exceptions import EOF

PREFIX = 0x01  # Ctrl-A, as with QEMU's own console
HELP = "Ctrl-A X quits (the machine loses its power), Ctrl-A L pulls or plugs the network, Ctrl-A A sends Ctrl-A"


class Terminal:
    """The terminal on ``stdin`` and ``stdout`` (file descriptors) as the console of ``machine``."""

    def __init__(self, machine, stdin=0, stdout=1):
        self._machine = machine
        self._stdin, self._stdout = stdin, stdout
        self._prefixed = False
        self._link = True

    def attach(self):
        """Pass keys and output on until the person quits or QEMU ends; tell whether QEMU still runs."""
        before = termios.tcgetattr(self._stdin)
        console = self._machine.console
        try:
            tty.setraw(self._stdin)
            console.divert(self._write)
            while not console.ended:
                # The console's end has no descriptor to wait for: look at it a few times a second.
                readable, _, _ = select.select([self._stdin], [], [], 0.2)
                if readable and not self._keys(os.read(self._stdin, 4096)):
                    break
        except EOF:
            pass
        finally:
            termios.tcsetattr(self._stdin, termios.TCSAFLUSH, before)
            console.divert(None)
        return self._machine.running

    def _write(self, data):
        while data:
            data = data[os.write(self._stdout, data):]

    def _keys(self, keys):
        if not keys:
            return False
        plain = bytearray()
        for key in keys:
            if not self._prefixed:
                if key == PREFIX:
                    self._prefixed = True
                else:
                    plain.append(key)
                continue
            self._prefixed = False
            match chr(key).lower():
                case "x":
                    return False
                case "a" | "\x01":
                    plain.append(PREFIX)
                case "l":
                    self._toggle_link()
                case _:
                    self._say(HELP)
        if plain:
            self._machine.console.send(bytes(plain))
        return True

    def _toggle_link(self):
        if self._machine.network == "none":
            self._say("the machine has no network: start it with --network user")
            return
        self._link = not self._link
        self._machine.set_link(self._link)
        self._say(f"the network is {'plugged in' if self._link else 'pulled out'}")

    def _say(self, text):
        self._write(f"\r\n[{text[: shutil.get_terminal_size().columns * 3]}]\r\n".encode())
