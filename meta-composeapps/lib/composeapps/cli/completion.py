# SPDX-License-Identifier: MIT
"""composeapps completion: what bash, zsh and fish need to complete this command's words, made from its parser."""

import argparse
from typing import NamedTuple

from composeapps.cli import output

HELP = {
    "examples": (
        ("composeapps completion bash > ~/.local/share/bash-completion/completions/composeapps", ""),
        ("composeapps completion zsh > ~/.zfunc/_composeapps", "with ~/.zfunc in fpath"),
        ("composeapps completion fish > ~/.config/fish/completions/composeapps.fish", ""),
    ),
    "details": ("The script goes to standard output. Images of this layer have it for all three shells.",),
}
# What a word stands for, by the placeholder that the help has for it.
_KINDS = {"FILE": "file", "DIR": "directory", "APP_DIR": "directory", "STORE": "directory", "PATH": "file",
          "APP": "app"}


def configure(name, parser):
    """Add this command's arguments."""
    parser.describe(**HELP)
    output.add_json(parser)
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help="bash, zsh or fish")
    parser.set_defaults(run=_completion)


def _completion(args):
    text = _SCRIPTS[args.shell](*_described())
    if args.json:
        output.print_json({"shell": args.shell, "script": text})
    else:
        print(text, end="")


class _Option(NamedTuple):
    """An option: its ``flags``, what its value is ("" without one, a kind, or a tuple of choices), its help."""

    flags: tuple
    value: object
    text: str


class _Command(NamedTuple):
    """A command: its name, its help, its Options, and what its other words are."""

    name: str
    text: str
    options: list
    words: object


def _described():
    """Return (the Options of the whole, the Commands)."""
    from composeapps.cli import main

    parser = main.build_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    helps = {each.dest: each.help for each in commands._choices_actions}
    return _options(parser), [
        _Command(name, helps[name], _options(sub), next(
            (kind for each in sub._actions if not each.option_strings and (kind := _kind(each))), ""))
        for name, sub in commands.choices.items()]


def _options(parser):
    return [_Option(tuple(each.option_strings), "" if each.nargs == 0 else _kind(each), each.help or "")
            for each in parser._actions if each.option_strings and each.help != argparse.SUPPRESS]


def _kind(action):
    """Return what the value of an argument is: a tuple of choices, "file", "directory", "app", or "other"."""
    if action.choices:
        return tuple(map(str, action.choices))
    return getattr(action, "completes", None) or _KINDS.get(str(action.metavar).split("|")[0], "other")


def _quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted(words):
    return _quote(" ".join(words))


def _bash_kind(value):
    return _quoted(value) if isinstance(value, tuple) else value


def _bash_case(options, words):
    """Return the lines that tell of one command: its flags, those with a value, its other words."""
    lines = [f"flags={_quoted(flag for option in options for flag in option.flags)}",
             f"words={_bash_kind(words) or 'other'}", "case $before in"]
    lines += [f"    {'|'.join(option.flags)}) value={_bash_kind(option.value)} ;;"
              for option in options if option.value]
    return "\n".join(f"            {line}" for line in [*lines, "esac"])


def _bash(options, commands):
    valued = "|".join(flag for option in options if option.value for flag in option.flags)
    cases = "".join(f"        {command.name})\n{_bash_case(command.options, command.words)}\n            ;;\n"
                    for command in commands)
    return f"""\
# bash completion for composeapps
_composeapps() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command= flags= words= value= i
    # The shell makes three words of --option=value.
    if [[ $current == = ]]; then
        current=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {valued})
                [[ ${{COMP_WORDS[i + 1]}} == = ]] && ((i++))
                ((i++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $command in
        "")
{_bash_case(options, tuple(command.name for command in commands))}
            ;;
{cases}    esac
    if [[ -z $value ]]; then
        [[ $current == -* ]] && value=$flags || value=$words
    fi
    case $value in
        other) COMPREPLY=() ;;
        file)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        directory)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        app) mapfile -t COMPREPLY < <(compgen -W "$({_APPS})" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$value" -- "$current") ;;
    esac
}}
complete -F _composeapps composeapps
"""


# The names of the apps in the store, whose grammar no shell minds.
_APPS = "composeapps ls 2>/dev/null | while read -r name rest; do [ \"$name\" = NAME ] || echo \"$name\"; done"


def _zsh_text(text):
    """Return a help text as a part of a specification for _arguments."""
    return "".join(f"\\{char}" if char in "[]:\\" else char for char in text)


def _zsh_value(value):
    kinds = {"file": "_files", "directory": "_files -/", "app": "_composeapps_apps", "other": " "}
    return f"({' '.join(value)})" if isinstance(value, tuple) else kinds[value]


def _zsh_specifications(command_options):
    for option in command_options:
        value = f":value:{_zsh_value(option.value)}" if option.value else ""
        for flag in option.flags:
            sign = "=" if option.value and flag.startswith("--") else ""
            yield _quote(f"*{flag}{sign}[{_zsh_text(option.text)}]{value}")


def _zsh(options, commands):
    listed = "\n".join(f"        {_quote(f'{each.name}:{_zsh_text(each.text)}')}" for each in commands)
    cases = ""
    for command in commands:
        words = [_quote(f"*:word:{_zsh_value(command.words)}")] if command.words else []
        arguments = " \\\n                        ".join([*_zsh_specifications(command.options), *words])
        cases += f"""\
                {command.name})
                    _arguments -s \\
                        {arguments} ;;
"""
    own = " \\\n        ".join(_zsh_specifications(options))
    return f"""\
#compdef composeapps
_composeapps_apps() {{
    local -a apps
    apps=(${{(f)"$({_APPS})"}})
    compadd -a apps
}}
_composeapps() {{
    local -a commands
    local state line curcontext="$curcontext"
    commands=(
{listed}
    )
    _arguments -C -s \\
        {own} \\
        '1:command:->command' '*::word:->words'
    case $state in
        command) _describe command commands ;;
        words)
            case $line[1] in
{cases}            esac ;;
    esac
}}
if [ "$funcstack[1]" = _composeapps ]; then
    _composeapps "$@"
else
    compdef _composeapps composeapps
fi
"""


def _fish_option(option, condition):
    words = ["complete -c composeapps", f"-n {_quote(condition)}"]
    words += [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.value:
        words.append("-r")
        words.append(_fish_value(option.value))
    words.append(f"-d {_fish_quote(option.text)}")
    return " ".join(filter(None, words))


def _fish_value(value):
    if isinstance(value, tuple):
        return f"-f -a {_fish_quote(' '.join(value))}"
    return {"file": "-F", "directory": "-f -a '(__fish_complete_directories)'", "app": "-f -a '(__composeapps_apps)'",
            "other": "-f"}[value]


def _fish_quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish(options, commands):
    valued = " ".join(flag for option in options if option.value for flag in option.flags)
    none = "test (count (__composeapps_command)) -eq 0"
    lines = [_FISH_FUNCTIONS.format(valued=valued), *(_fish_option(option, none) for option in options)]
    for command in commands:
        lines.append(f"complete -c composeapps -n {_quote(none)} -a {command.name} "
                     f"-d {_fish_quote(command.text)}")
        condition = f"contains {command.name} (__composeapps_command)"
        lines += [_fish_option(option, condition) for option in command.options]
        if command.words:
            lines.append(f"complete -c composeapps -n {_quote(condition)} {_fish_value(command.words)}")
    return "\n".join(lines) + "\n"


_FISH_FUNCTIONS = """\
# fish completion for composeapps
function __composeapps_apps
    composeapps ls 2>/dev/null | string match -v 'NAME *' | string replace -r ' .*' ''
end
function __composeapps_command
    set -l words (commandline -opc)
    set -l value
    for word in $words[2..-1]
        if test -n "$value"
            set value
            continue
        end
        switch $word
            case {valued}
                set value next
            case '-*'
            case '*'
                echo $word
                return
        end
    end
end
complete -c composeapps -f"""

_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
