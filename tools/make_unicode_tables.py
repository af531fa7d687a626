"""Writes coordinator/text/unicode_versions.inc: where the Unicode tables of the
libraries that Witan uses differ from those of the reference tokenizers.

    pip install unicodedataplus==16.0.0
    python3 tools/make_unicode_tables.py
"""

import pathlib

import unicodedataplus as unicode

PATH = pathlib.Path(__file__).resolve().parents[1] / "coordinator/text/unicode_versions.inc"
# Of a general category, characters that Unicode 14 had, of 3 and of 4 bytes.
STAND_INS = {"Lo": (0x3042, 0x10000), "Lu": (0x1E00, 0x10400), "Ll": (0x1E01, 0x10428), "Lm": (0x3031, 0x16B40),
             "Mn": (0x20D0, 0x101FD), "Mc": (0x0903, 0x11000), "Nd": (0x0966, 0x104A0), "Nl": (0x2160, 0x10140),
             "No": (0x2460, 0x10107), "Po": (0x2020, 0x10100), "Pd": (0x2010, 0x10EAD), "So": (0x2100, 0x10137),
             "Sm": (0x2200, 0x1D6C1), "Sk": (0x309B, 0x1F3FB), "Sc": (0x20A0, 0x1E2FF), "Cf": (0x200B, 0x110BD)}
HAN = 0x20000


def version(character):
    age = unicode.age(character)
    return 0 if age in (None, "NA", "Unassigned", "") else float(age)


def ranges(rows):
    """[(character, value)] in order, joined where neighbours have one value."""
    joined = []
    for character, value in rows:
        if joined and joined[-1][1] == character - 1 and joined[-1][2] == value:
            joined[-1][1] = character
        else:
            joined.append([character, character, value])
    return joined


def main():
    characters = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]
    stand_ins = []
    changing = set()
    for character in characters:
        if version(character) > 14:
            code = ord(character)
            stand_in = HAN if unicode.script(character) == "Han" and code > 0xFFFF else (
                STAND_INS[unicode.category(character)][code > 0xFFFF])
            assert len(chr(stand_in).encode()) == len(character.encode()), hex(code)
            stand_ins.append((code, stand_in))
        if version(character) > 9:
            decomposition = unicode.decomposition(character)
            if unicode.combining(character) or decomposition:
                changing.add(ord(character))
            if decomposition and not decomposition.startswith("<"):
                parts = [int(part, 16) for part in decomposition.split()]
                changing.update(part for part in parts if version(chr(part)) > 9)
    inert = ranges([(code, 0) for code in sorted(changing)])
    text = "// Written by tools/make_unicode_tables.py.\n\n"
    text += "constexpr StandIn kStandIns[] = {\n"
    text += "".join(f"    {{0x{a:04X}, 0x{b:04X}, 0x{c:04X}}},\n" for a, b, c in ranges(stand_ins))
    text += "};\n\nconstexpr Range kChangedSinceUnicode9[] = {\n"
    text += "".join(f"    {{0x{a:04X}, 0x{b:04X}}},\n" for a, b, _ in inert)
    text += "};\n"
    PATH.write_text(text)
    print(f"{PATH}: {len(ranges(stand_ins))} and {len(inert)} rows")


if __name__ == "__main__":
    main()
