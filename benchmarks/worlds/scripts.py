"""The scripts of the world `glyphs`: their letters, and which fonts draw a script's letters truly."""

import unicodedata

LETTERS = 60  # of a script, at most

# Ranges of code points; letters alone are taken.
RANGES = {
    "arabic": (0x627, 0x64A),
    "armenian": (0x531, 0x586),
    "bengali": (0x985, 0x9B9),
    "bopomofo": (0x3105, 0x3129),
    "canadian": (0x1401, 0x1676),
    "cherokee": (0x13A0, 0x13F4),
    "coptic": (0x2C80, 0x2CB1),
    "devanagari": (0x905, 0x939),
    "ethiopic": (0x1200, 0x1350),
    "georgian": (0x10D0, 0x10F0),
    "glagolitic": (0x2C00, 0x2C5E),
    "gujarati": (0xA85, 0xAB9),
    "gurmukhi": (0xA05, 0xA39),
    "han": (0x4E00, 0x9FA5),
    "hangul": (0xAC00, 0xD7A3),
    "hebrew": (0x5D0, 0x5EA),
    "hiragana": (0x3042, 0x3093),
    "kannada": (0xC85, 0xCB9),
    "katakana": (0x30A2, 0x30F3),
    "khmer": (0x1780, 0x17B3),
    "lao": (0xE81, 0xEAE),
    "lepcha": (0x1C00, 0x1C23),
    "malayalam": (0xD05, 0xD39),
    "meetei": (0xABC0, 0xABE2),
    "mongolian": (0x1820, 0x1842),
    "myanmar": (0x1000, 0x102A),
    "newtailue": (0x1980, 0x19AB),
    "nko": (0x7C0, 0x7EA),
    "olchiki": (0x1C50, 0x1C7D),
    "oriya": (0xB05, 0xB39),
    "runic": (0x16A0, 0x16EA),
    "sinhala": (0xD85, 0xDC6),
    "syriac": (0x710, 0x72C),
    "tamil": (0xB85, 0xBB9),
    "telugu": (0xC05, 0xC39),
    "thaana": (0x780, 0x7A5),
    "thai": (0xE01, 0xE2E),
    "tibetan": (0xF40, 0xF6A),
    "tifinagh": (0x2D30, 0x2D67),
    "vai": (0xA500, 0xA60B),
    "yi": (0xA000, 0xA48C),
}
SPACED = {"han": 331, "hangul": 181, "yi": 19, "ethiopic": 5, "vai": 4, "canadian": 9}  # every n-th of a large script

# The task's script: letters that differ in more than their height. Latin and Greek leave out those that look like one
# of them, so that the kind of an image can be seen.
CYRILLIC = "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯҐЂЄЉЊЋЏаберуф"
GIVEN = {
    "cyrillic": CYRILLIC,
    "latin": "DFGIJLNQRSUVWZbdfghijklmnqrstuvwz",
    "greek": "ΔΘΛΞΣΨΩαβγδεζηθλμξπσςψω",
}

# Packages whose fonts put other things at the code points of scripts that they do not draw.
ONLY = {
    "fonts-monlam": {"tibetan"},
    "fonts-myanmar": {"myanmar"},
    "fonts-ukij-uyghur": {"arabic", "cyrillic", "latin"},
    "fonts-ldco": {"hebrew"},
    "fonts-taml-tamu": {"tamil"},
    "fonts-arabeyes": {"arabic"},
    "fonts-teluguvijayam": {"telugu", "latin"},
    "fonts-lg-aboriginal": {"canadian", "cherokee", "runic", "latin"},
}


def letters(script: str) -> str:
    """At most LETTERS letters of a script; of large ones every n-th."""
    if script in GIVEN:
        return GIVEN[script]
    first, last = RANGES[script]
    found = [chr(code) for code in range(first, last + 1) if unicodedata.category(chr(code)) in ("Lo", "Lu", "Ll")]
    return "".join(found[:: SPACED.get(script, 1)][:LETTERS])


SCRIPTS = (*GIVEN, *RANGES)
