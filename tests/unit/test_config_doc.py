#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The documents name what the program knows: keys of the configuration, options of the daemon.

Compares the parser's tables in config/*.c with readyd.yaml.5 and readyd.yaml, and the table of
options in daemon/keeper/options.c with its help text and readyd.8. Needs nothing but the source.
"""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def between(path, start, end):
    """The part of a file between two strings, both of which must be there."""
    content = text(path)
    first = content.index(start) + len(start)
    return content[first:content.index(end, first)]


def parser_keys():
    return re.findall(r'\{"([a-z-]+)", read_\w+\}', between("config/config_read.c", "} keys[] = {", "};"))


def parser_limits():
    return re.findall(r'= "([a-z-]+)"', between("config/config.c", "limit_keys[] = {", "};"))


def manual_section(path, name):
    """The lines of a .Sh or .Ss, up to the next one."""
    lines = text(path).splitlines()
    first = next(i for i, line in enumerate(lines) if re.fullmatch(rf"\.S[hs] {name}", line))
    last = next(i for i, line in enumerate(lines) if i > first and line.startswith((".Sh", ".Ss")))
    return lines[first + 1:last]


def manual_items(path, section, pattern):
    return [m[1] for line in manual_section(path, section) if (m := re.match(pattern, line))]


def yaml_keys(depth):
    """Keys of the shipped file, which are comments with # before the key, at one depth."""
    return re.findall(rf"^#{depth}([a-z-]+):", text("config/readyd.yaml"), re.MULTILINE)


class Keys(unittest.TestCase):
    def test_tables_are_found(self):
        self.assertEqual(len(parser_keys()), 16)
        self.assertEqual(len(parser_limits()), 7)

    def test_manual_has_every_key(self):
        found = manual_items("config/readyd.yaml.5", "KEYS", r"\.It Cm ([a-z-]+) :")
        self.assertEqual(found, parser_keys())

    def test_manual_has_every_limit(self):
        found = manual_items("config/readyd.yaml.5", "Limits", r"\.It Cm ([a-z-]+)$")
        self.assertEqual(found, parser_limits())

    def test_shipped_file_has_every_key(self):
        self.assertEqual(yaml_keys(""), parser_keys())

    def test_shipped_file_has_every_limit(self):
        self.assertEqual(yaml_keys("  "), parser_limits())

    def test_shipped_file_is_comments_only(self):
        for line in text("config/readyd.yaml").splitlines():
            self.assertRegex(line, r"^\s*(#.*)?$")


class Options(unittest.TestCase):
    def options(self):
        table = between("daemon/keeper/options.c", "struct option names[] = {", "};")
        return re.findall(r'\{"([a-z-]+)", \w+_argument', table)

    def test_table_is_found(self):
        self.assertEqual(len(self.options()), 10)

    def test_help_has_every_option(self):
        help_text = between("daemon/keeper/options.c", "char help[] =", ";\n")
        self.assertEqual(re.findall(r'"  --([a-z-]+)', help_text), self.options())

    def test_manual_has_every_option(self):
        found = manual_items("daemon/keeper/readyd.8", "Options", r"\.It Fl -([a-z-]+)")
        self.assertEqual(found, self.options())

    def test_synopsis_has_every_option(self):
        lines = "\n".join(manual_section("daemon/keeper/readyd.8", "SYNOPSIS"))
        self.assertEqual(sorted(re.findall(r"-([a-z]+(?:-[a-z]+)*)", lines)), sorted(self.options()))


if __name__ == "__main__":
    sys.exit(unittest.main())
