#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""readyctl.1 against readyctl's own tables.

The options, verbs, columns and JSON names are read from the C tables (and the options once more
from `readyctl --help` where READYCTL names the program), and each must be defined in the manual
page, in the section of its verb. The page may define no option, verb or column that is not there.
"""

import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CTL = ROOT / "client-lib" / "ctl"


def uncomment(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def c_source(name):
    return uncomment((CTL / name).read_text())


def c_table(source, name):
    """The text between the braces of the array `name`."""
    match = re.search(r"\b%s\[\] = \{(.*?)\n\s*\};" % name, source, re.S)
    assert match, "no table " + name
    return match.group(1)


def fields(name, table="fields"):
    """[(title or None, key, in JSON)] of an output_field table."""
    rows = re.findall(r'\{(NULL|"([^"]*)"),\s*"([^"]*)",\s*([A-Z_0-9 |]+)\}',
                      c_table(c_source(name), table))
    assert rows, "empty table in " + name
    return [(title if quoted != "NULL" else None, key, "OUTPUT_NO_JSON" not in flags)
            for quoted, title, key, flags in rows]


def options():
    """{(letter or None, name)} of the option table."""
    rows = re.findall(r"\{\"([a-z-]+)\",\s*(0|'.'),\s*(NULL|\"[A-Z]+\"),",
                      c_table(c_source("main.c"), "ctl_options"))
    assert rows
    return {(None if letter == "0" else letter.strip("'"), name) for name, letter, _ in rows}


def verbs():
    rows = re.findall(r'\{"([a-z]+)",\s*"[^"]*",', c_table(c_source("main.c"), "ctl_verbs"))
    assert rows
    return rows


PAGE = (CTL / "readyctl.1").read_text()


def section(name):
    match = re.search(r"^\.Sh %s\n(.*?)(?=^\.Sh |\Z)" % re.escape(name), PAGE, re.M | re.S)
    assert match, "no section " + name
    return match.group(1)


def subsections():
    parts = re.split(r"^\.Ss (\S+).*\n", section("VERBS"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def plain(text):
    """Without sample output."""
    return re.sub(r"^\.Bd.*?^\.Ed$", "", text, flags=re.M | re.S)


def defined_columns(text):
    items = re.findall(r"^\.It Sy (.*?)(?: Pq Va .*)?$", plain(text), re.M)
    return [item.replace("\\&", "") for item in items]


def defined_names(text):
    names = set()
    for line in plain(text).splitlines():
        match = re.search(r"(?:^\.It .*?|^\.)(?:Pq )?Va (.*)$", line)
        if match:
            names.update(re.findall(r"[a-z_]+", match.group(1)))
    return names


TABLES = {
    "status": fields("command_status.c"),
    "sessions": fields("command_sessions.c"),
    "list": fields("watch_row.c", "watch_row_fields"),
    "timers": fields("command_timers.c"),
    "quotas": fields("command_quotas.c"),
    "show": fields("command_show.c"),
    "wait": fields("command_wait.c"),
    "park": fields("command_park.c"),
    "parked": fields("command_parked.c"),
    "groups": fields("command_groups.c"),
    "drop": fields("command_drop.c"),
    "break": fields("command_break.c"),
    "upgrade": fields("command_upgrade.c"),
    "version": fields("command_version.c"),
}


class OptionTest(unittest.TestCase):
    def test_options_of_the_page_are_those_of_the_table(self):
        page = set()
        for line in re.findall(r"^\.It (.*Fl Fl .*)$", section("OPTIONS"), re.M):
            letter = re.match(r"Fl ([a-z]) ,", line)
            name = re.search(r"Fl Fl ([a-z-]+)", line).group(1)
            page.add((letter.group(1) if letter else None, name))
        self.assertEqual(page, options())

    def test_every_option_in_the_running_text_exists(self):
        known = {name for _, name in options()}
        used = set(re.findall(r"\bFl Fl ([a-z-]+)", PAGE))
        self.assertEqual(used - known, set())

    @unittest.skipUnless(os.environ.get("READYCTL"), "READYCTL names no program")
    def test_options_of_help_are_those_of_the_table(self):
        result = subprocess.run([os.environ["READYCTL"], "--help"], capture_output=True,
                                text=True, check=True, timeout=30)
        found = {(letter or None, name) for letter, name in
                 re.findall(r"^  (?:-([a-z]),|   ) --([a-z-]+)", result.stdout, re.M)}
        self.assertEqual(found, options())
        for verb in verbs():
            self.assertRegex(result.stdout, r"(?m)^  %s " % verb)


class VerbTest(unittest.TestCase):
    def test_verbs_of_the_page_are_those_of_the_table(self):
        self.assertEqual(sorted(subsections()), sorted(verbs()))

    def test_every_verb_has_its_table_here(self):
        self.assertEqual(set(TABLES), set(verbs()) - {"help", "take"})
        for name in sorted(CTL.glob("*.c")):
            if "struct output_field " in name.read_text():
                self.assertIn(name.name, {"command_%s.c" % verb for verb in TABLES} |
                              {"watch_row.c", "output.c"})

    def test_columns_are_defined_in_order(self):
        for verb, table in TABLES.items():
            with self.subTest(verb=verb):
                self.assertEqual(defined_columns(subsections()[verb]),
                                 [title for title, _, _ in table if title])

    def test_json_names_are_defined(self):
        for verb, table in TABLES.items():
            with self.subTest(verb=verb):
                names = {key for _, key, json in table if json}
                self.assertEqual(names - defined_names(subsections()[verb]), set())

    def test_the_page_defines_no_json_name_that_is_not_there(self):
        arrays = {"sessions", "watches", "timers", "quotas", "parks", "groups", "ready"}
        for verb, table in TABLES.items():
            with self.subTest(verb=verb):
                names = {key for _, key, json in table if json}
                self.assertEqual(defined_names(subsections()[verb]) - names - arrays, set())

    def test_column_and_its_json_name_stand_together(self):
        for verb, table in TABLES.items():
            for title, key, json in table:
                if title and json:
                    with self.subTest(verb=verb, column=title):
                        self.assertRegex(subsections()[verb],
                                         r"(?m)^\.It Sy %s Pq Va %s\b" % (title, key))

    def test_samples_show_the_columns(self):
        for verb, table in TABLES.items():
            titles = [title for title, _, _ in table if title]
            samples = re.findall(r"^\.Bd -literal\n(.*?)^\.Ed$", subsections()[verb],
                                 re.M | re.S)
            if titles:
                with self.subTest(verb=verb):
                    self.assertEqual(len(samples), 1)
                    for title in titles:
                        self.assertIn(title, samples[0])


class ExitTest(unittest.TestCase):
    def test_exit_statuses_are_those_of_the_header(self):
        enum = re.search(r"enum ctl_status \{(.*?)\}", c_source("ctl.h"), re.S).group(1)
        self.assertEqual(re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.M),
                         re.findall(r"= (\d+)", enum))


if __name__ == "__main__":
    unittest.main()
