"""How each publisher cuts text before byte-pair merging: regular expressions, by llama.cpp's name for them.

A publisher's several expressions cut one after the other, each within the pieces that the last one left.
"""

from __future__ import annotations

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_ENGLISH}|{_WORD}|\p{{N}}|{_REST}"

# a word is cut before an upper-case letter that follows a lower-case one
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAMEL = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_REST_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{_CAMEL[0]}|{_CAMEL[1]}|\p{{N}}|{_REST_SLASH}"
O200K = rf"{_CAMEL[0]}{_ENGLISH}?|{_CAMEL[1]}{_ENGLISH}?|\p{{N}}{{1,3}}|{_REST_SLASH}"

# DeepSeek lists the letters with case of the Unicode of its day: these came later, or were left out
_NOT_CASED = (
    r"[\x{560}-\x{588}\x{10C6}-\x{10FF}\x{1C80}-\x{1C88}\x{2D00}-\x{2D2D}\x{A790}-\x{A7FA}\x{AB30}-\x{AB6F}"
    r"\x{10570}-\x{105BC}\x{16E40}-\x{16E7F}\x{1D400}-\x{1D7CB}\x{1DF00}-\x{1DF1E}]"
)
_CASED = rf"(?:(?!{_NOT_CASED})[\p{{Lu}}\p{{Ll}}\p{{Lt}}])"
_CJK = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
_MARKS = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"
_DIGITS = (r"\p{N}", GPT2)
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)

# tokenizer.ggml.pre to the expressions
PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "llama-bpe": (LLAMA3,),
    "deepseek-llm": ("[\r\n]", rf"\s?{_CASED}+", _MARKS, r"\s+$", _CJK, r"\p{N}+"),
    "deepseek-coder": ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"),
    "deepseek-v3": _DEEPSEEK3,
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
    "starcoder": _DIGITS,
    "gpt-2": (GPT2,),
    "qwen2": (QWEN2,),
    "tekken": (TEKKEN,),
    "gpt-4o": (O200K,),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2,
    ),
}

# publishers that cut as another one does
_SAME = {
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe chatglm-bpe glm4",
    "gpt-2": "phi-2 mpt olmo jais trillion roberta-bpe gigachat jina-es jina-de jina-v2-es jina-v2-de jina-v2-code "
    "modern-bert a.x-4.0 mellum",
    "starcoder": "refact command-r smollm codeshell exaone minerva-7b",
    "qwen2": "deepseek-r1-qwen stablelm2 hunyuan megrez grok-2",
    "gpt-4o": "llama4 o200k",
    "deepseek-v3": "hunyuan-dense",
}
PATTERNS |= {name: PATTERNS[like] for like, names in _SAME.items() for name in names.split()}
# they merge only within a piece that is not itself a token
WHOLE_FIRST = frozenset(("llama-bpe", "tekken", "gpt-4o", *_SAME["llama-bpe"].split(), *_SAME["gpt-4o"].split()))
