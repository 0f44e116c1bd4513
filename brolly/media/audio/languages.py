"""The languages that Whisper tells apart, in the order of their tokens: code and English name."""

from __future__ import annotations

from brolly.errors import OptionError

# yue came with large-v3; each code is ISO 639's but jw, which is jv there
_LISTED = """
    en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt portuguese,
    tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id indonesian, hi hindi, fi finnish,
    vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish, hu hungarian,
    ta tamil, no norwegian, th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin, mi maori,
    ml malayalam, cy welsh, sk slovak, te telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani,
    sl slovenian, kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali,
    mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi, pa punjabi, si sinhala,
    km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan, ka georgian, be belarusian, tg tajik, sd sindhi,
    gu gujarati, am amharic, yi yiddish, lo lao, uz uzbek, fo faroese, ht haitian creole, ps pashto, tk turkmen,
    nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish, my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese,
    tt tatar, haw hawaiian, ln lingala, ha hausa, ba bashkir, jw javanese, su sundanese, yue cantonese
"""
LANGUAGES = {code: name for code, _, name in (row.strip().partition(" ") for row in _LISTED.split(","))}
OTHER_NAMES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps",
    "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si", "castilian": "es", "mandarin": "zh",
}  # fmt: skip
UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}  # written without spaces between words


def language_code(said: str) -> str:
    """The code of a language, named by its code or in English. Raises OptionError."""
    wanted = said.strip().lower()
    if wanted in LANGUAGES:
        return wanted
    names = {name: code for code, name in LANGUAGES.items()} | OTHER_NAMES
    if wanted not in names:
        raise OptionError(f"language {said!r:.60} is not known; expected a code or a name such as en, english, de, zh.")
    return names[wanted]
