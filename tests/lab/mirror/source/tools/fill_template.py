#!/usr/bin/env python3
"""Lab stand-in for tools/fill_template.py: fills ${name} placeholders of a config.pbtxt.

It keeps the sharp edges of the tool of the same tag on purpose: what a deploy must survive is what it meets here.
"""

import argparse
import string

VERSION = (0, 0, 0)

# `\,` and `\:` stand for themselves; each of the two passes takes one backslash off.
ESCAPES = VERSION >= (0, 16, 0)
# By substring: any piece of the file's text passes for a key.
REFUSES_UNKNOWN = VERSION >= (0, 19, 0)


def presets() -> dict[str, str]:
    values: dict[str, str] = {}
    if VERSION >= (0, 12, 0):
        values["max_queue_size"] = "0"
    if VERSION >= (0, 19, 0):
        values["max_queue_delay_microseconds"] = "0"
    return values


def pieces(text: str, separator: str) -> list[str]:
    if not ESCAPES:
        return text.split(separator)
    found, characters = [""], iter(text)
    for character in characters:
        if character == "\\":
            found[-1] += next(characters, "")
        elif character == separator:
            found.append("")
        else:
            found[-1] += character
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("file_path", help="the config.pbtxt to fill")
    arguments.add_argument("substitutions", help="name:value,name:value,...")
    arguments.add_argument(
        "--in_place", "-i", action="store_true", help="write the file instead of printing it"
    )
    given = arguments.parse_args()
    with open(given.file_path) as file:
        text = file.read()
    values = presets()
    for pair in pieces(given.substitutions, ","):
        key, value = pieces(pair, ":")
        if REFUSES_UNKNOWN and key not in text:
            raise AssertionError(f"{given.file_path} has no '{key}'")
        values[key] = value
    filled = string.Template(text).safe_substitute(values)
    if given.in_place:
        with open(given.file_path, "w") as file:
            file.write(filled)
    else:
        print(filled)


if __name__ == "__main__":
    main()
