#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares PROTOCOL.md with wire.h, wire.c's table and the vectors.

usage: test_protocol_doc.py [FOLDER OF protocol/]

Checked: every constant (name and number, none missing on either side), every record (size, and each
field's offset, width and name), the table of message types (record, how many, tail, fds), and that
each example in the document is the file that it names. Exit status 1 if anything differs.
"""

import os
import re
import sys

FAULTS = []


def fault(text):
    FAULTS.append(text)


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return f.read()


# ---- wire.h ----

WIDTHS = {"uint8_t": "u8", "uint16_t": "u16", "uint32_t": "u32", "uint64_t": "u64",
          "int8_t": "i8", "int16_t": "i16", "int32_t": "i32", "int64_t": "i64"}


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def number(text):
    text = re.sub(r"^UINT32_C\((.*)\)$", r"\1", text.strip())
    return int(text, 0)


def header_constants(text):
    """{name: number} of all enumerators with a number, and of #defines with one."""
    constants = {}
    for body in re.findall(r"\benum\b[^{;()]*\{(.*?)\}", text, flags=re.S):
        for item in body.split(","):
            name, equals, value = item.partition("=")
            if equals:
                constants[name.strip()] = number(value)
    for name, value in re.findall(r"^#define (\w+) (\S+)$", text, flags=re.M):
        constants[name] = number(value)
    return constants


def header_records(text, constants):
    """{struct name without wire_: (size, [(offset, width, name)])}, laid out as C does."""
    records = {}
    for name, body in re.findall(r"\bstruct wire_(\w+) \{(.*?)\n\}", text, flags=re.S):
        if name == "view":
            continue
        fields, offset, widest = [], 0, 1
        for c_type, field, _, array in re.findall(r"(\w+) (\w+)(\[(\w+)\])?;", body):
            if c_type not in WIDTHS:
                fault(f"wire.h: struct wire_{name} has a field of the unknown type {c_type}")
                continue
            width = WIDTHS[c_type]
            size = int(width[1:]) // 8
            widest = max(widest, size)
            if offset % size:
                fault(f"wire.h: struct wire_{name} has padding before {field}")
                offset += size - offset % size
            if array:
                size *= constants[array] if array in constants else int(array)
                width = f"b{size}"
            fields.append((offset, width, field))
            offset += size
        if offset % widest or offset % 8:
            fault(f"wire.h: struct wire_{name} has {offset} bytes, no multiple of 8")
        records[name] = (offset, fields)
    return records


# ---- wire.c ----

def codec_types(text):
    """{type: (from, record, lowest, highest, has tail, fd for each record)}"""
    types = {}
    for how, args in re.findall(r"^\t(NONE|ONE|MANY|ROWS)\(([^)]*)\),", text, flags=re.M):
        words = [w.strip() for w in args.split(",")]
        name = words[0]
        record = "-" if how == "NONE" else words[1].removeprefix("wire_")
        traits = words[-1]
        lowest, highest = {"NONE": (0, 0), "ONE": (1, 1), "MANY": (1, 1024), "ROWS": (0, 1024)}[how]
        types[name] = ("client" if "FROM_CLIENT" in traits else "daemon", record, lowest, highest,
                       "HAS_TAIL" in traits, "FD_PER_RECORD" in traits)
    return types


# ---- PROTOCOL.md ----

def cells(line):
    return [c.strip() for c in line.strip().strip("|").split("|")]


def tables(text):
    """Yields (nearest heading, text line before the table, column names, rows)."""
    heading, before, lines = "", "", text.split("\n")
    i, fenced = 0, False
    while i < len(lines):
        line = lines[i]
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            pass
        elif line.startswith("#"):
            heading, before = line.lstrip("# "), ""
        elif line.startswith("|"):
            columns, rows = cells(line), []
            i += 2
            while i < len(lines) and lines[i].startswith("|"):
                rows.append(cells(lines[i]))
                i += 1
            for row in rows:
                if len(row) != len(columns):
                    fault(f"PROTOCOL.md, {heading}: a row has {len(row)} cells: {row}")
            yield heading, before, columns, rows
            continue
        elif line.strip():
            before = line
        i += 1


# Heading, and text before the table where one heading has two: the prefix of its names in wire.h.
PREFIXES = {
    "6.1 Message types": "WIRE_",
    "6.2 Header flags": "WIRE_FLAG_",
    "6.3 Errors": "WIRE_E_",
    "6.4 Quotas": "WIRE_QUOTA_",
    "6.5 Directions": "WIRE_",
    "6.6 Modes": "WIRE_MODE_",
    "6.7 Flags of UNWATCH, DEADLINE and TIMER_SET/UNWATCH:": "WIRE_UNWATCH_",
    "6.7 Flags of UNWATCH, DEADLINE and TIMER_SET/DEADLINE and TIMER_SET:": "WIRE_TIME_",
    "6.8 Flags of PARK": "WIRE_PARK_",
    "6.9 How TAKE and DROP name a park": "WIRE_TAKE_",
    "6.10 Records of READY": "WIRE_RECORD_",
    "6.11 Codes of an entry": "WIRE_CODE_",
    "6.12 Kinds of fd": "WIRE_KIND_",
    "6.13 Flags of a session row": "WIRE_SESSION_",
    "6.14 States of a slot": "WIRE_SLOT_",
    "6.15 Flags of a watch row": "WIRE_WATCH_",
    "6.16 States of a park": "WIRE_PARK_",
    "6.17 Others": "WIRE_",
    "7. Size limits": "WIRE_",
}


def document_constants(document):
    constants, used = {}, set()
    for heading, before, columns, rows in tables(document):
        if columns[:2] != ["name", "number"]:
            continue
        key = heading if heading in PREFIXES else f"{heading}/{before}"
        if key not in PREFIXES:
            fault(f"PROTOCOL.md: a table of numbers under an unknown heading: {key}")
            continue
        used.add(key)
        for row in rows:
            name = PREFIXES[key] + row[0]
            if name == "WIRE_E_OK":
                name = "WIRE_OK"
            if name in constants:
                fault(f"PROTOCOL.md, {heading}: {row[0]} stands there twice")
            constants[name] = number(row[1])
    for key in PREFIXES.keys() - used:
        fault(f"PROTOCOL.md: the table of \"{key}\" is missing")
    return constants


def document_records(document):
    records = {}
    for heading, before, columns, rows in tables(document):
        if columns != ["offset", "width", "name", "meaning"]:
            continue
        title = re.fullmatch(r"Record `(\w+)`, (\d+) bytes:", before)
        if not title:
            fault(f"PROTOCOL.md, {heading}: a table of fields without \"Record `name`, N bytes:\"")
            continue
        if title[1] in records:
            fault(f"PROTOCOL.md, {heading}: record {title[1]} stands there twice")
        records[title[1]] = (int(title[2]), [(int(r[0]), r[1], r[2]) for r in rows])
    return records


def document_types(document):
    for heading, _, columns, rows in tables(document):
        if heading == "6.1 Message types":
            return {row[0]: dict(zip(columns, row)) for row in rows}
    return {}


# ---- Comparing ----

def compare_constants(header, document):
    for name in sorted(header.keys() | document.keys()):
        if name not in document:
            fault(f"{name} = {header[name]} is in wire.h and not in PROTOCOL.md")
        elif name not in header:
            fault(f"{name} = {document[name]} is in PROTOCOL.md and not in wire.h")
        elif header[name] != document[name]:
            fault(f"{name} is {header[name]} in wire.h, {document[name]} in PROTOCOL.md")


def compare_records(header, document):
    for name in sorted(header.keys() | document.keys()):
        if name not in document or name not in header:
            where = "wire.h" if name in header else "PROTOCOL.md"
            fault(f"record {name} is in {where} only")
            continue
        if header[name][0] != document[name][0]:
            fault(f"record {name}: {header[name][0]} bytes in wire.h, "
                  f"{document[name][0]} in PROTOCOL.md")
        ours, theirs = header[name][1], document[name][1]
        for i in range(max(len(ours), len(theirs))):
            a = ours[i] if i < len(ours) else "nothing"
            b = theirs[i] if i < len(theirs) else "nothing"
            if a != b:
                fault(f"record {name}, field {i}: {a} in wire.h, {b} in PROTOCOL.md")


def compare_types(codec, document, constants):
    for name in sorted(codec.keys() | document.keys()):
        if name not in document or name not in codec:
            fault(f"type {name} is in {'wire.c' if name in codec else 'PROTOCOL.md'} only")
            continue
        row = document[name]
        sender, record, lowest, highest, tail, fds = codec[name]
        wanted = {
            "from": sender,
            "record": record,
            "records": str(lowest) if lowest == highest else f"{lowest} to {highest}",
            "fds": "1 a record" if fds else "1 a record with FD" if name == "UNWATCH" else "0",
        }
        for column, value in wanted.items():
            if row[column] != value:
                fault(f"type {name}, {column}: \"{value}\" in wire.c, "
                      f"\"{row[column]}\" in PROTOCOL.md")
        if (row["tail"] != "-") != tail:
            fault(f"type {name}: wire.c and PROTOCOL.md differ about its tail")
        if (constants["WIRE_" + name] < 0x80) != (sender == "client"):
            fault(f"type {name}: its number is in the range of the other side")


def compare_examples(document, folder):
    examples = re.findall(r"^```hex (\S+)\n(.*?)\n```$", document, flags=re.M | re.S)
    for name, body in examples:
        try:
            file = read(folder, name)
        except OSError as error:
            fault(f"PROTOCOL.md quotes {name}: {error.strerror}")
            continue
        if file.partition("\n\n")[2].rstrip("\n") != body:
            fault(f"PROTOCOL.md quotes {name} wrongly")
        if "# verdict: ok\n" not in file:
            fault(f"PROTOCOL.md quotes {name}, which is not a good example")
    quoted = " ".join(f"{body.splitlines()[0]} " for _, body in examples)
    return len(examples), quoted


def check_section_references(document):
    numbers = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)", document, flags=re.M))
    for reference in re.findall(r"(?:[Ss]ections?|[Cc]hapters?|and) (\d+(?:\.\d+)?)", document):
        if "." in reference and reference not in numbers:
            fault(f"PROTOCOL.md: there is no section {reference}")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..", "protocol")
    header = strip_comments(read(folder, "wire.h"))
    document = read(folder, "PROTOCOL.md")

    constants = header_constants(header)
    records = header_records(header, constants)
    types = codec_types(strip_comments(read(folder, "wire.c")))
    n_examples, quoted = compare_examples(document, folder)

    compare_constants(constants, document_constants(document))
    compare_records(records, document_records(document))
    compare_types(types, document_types(document), constants)
    check_section_references(document)
    for name in types:
        if not re.search(rf"# header: {name}, ", quoted):
            fault(f"PROTOCOL.md has no example of {name}")
    # What finds nothing proves nothing.
    if len(constants) < 100 or len(records) < 30 or len(types) < 39 or n_examples < 39:
        fault(f"only {len(constants)} constants, {len(records)} records, {len(types)} types, "
              f"{n_examples} examples were found: this script no longer reads the sources")

    for text in FAULTS:
        print(text, file=sys.stderr)
    print(f"{len(constants)} constants, {len(records)} records, {len(types)} types, "
          f"{n_examples} examples compared: {len(FAULTS)} differences")
    return 1 if FAULTS else 0


if __name__ == "__main__":
    sys.exit(main())
