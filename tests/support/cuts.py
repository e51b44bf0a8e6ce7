# SPDX-License-Identifier: MIT
"""Power cuts at the writes of a record, without a disk: nothing happens any more from one of them on."""


class Cut(BaseException):
    """The power goes."""


def cut_writes(patch, module, number):
    """Have the power go at one of the calls of ``write(parts, entry)`` in a module.

    Arguments:
        patch: a MonkeyPatch.
        module: the module, which has ``write`` among its names.
        number: from 0 on; of two that follow each other the first is a cut before a write and the second one after it.
    """
    came, real = [], module.write

    def cutting(parts, entry):
        came.append(entry)
        if len(came) > number // 2:
            if number % 2:
                real(parts, entry)
            raise Cut
        real(parts, entry)

    patch.setattr(module, "write", cutting)
