"""Texts that try to steer a terminal: a catalogue of known ones and a generator of random ones."""

from __future__ import annotations

import random
from collections.abc import Iterator

ESC, CSI8, OSC8, DCS8, ST8 = "\x1b", "\x9b", "\x9d", "\x90", "\x9c"
_ENDS = ("\x07", "\x1b\\", ST8, "")  # the last one swallows what follows

# Final bytes and parameters of control sequences, by what they do.
_CSI = [
    *(f"{n}m" for n in (0, 1, 4, 5, 7, 8, 31, 41, 91, 107)),
    *("38;5;196m", "48;2;255;0;0m", "58:2::1:2:3m", "4:3m", "7777m"),
    *(f"7{c}" for c in "ABCDEFGIZ`aej"),
    *("1;1H", "99;99f", "5d", "5G", "s", "u", "5;9r", "?5;9r"),
    *(
        "J",
        "1J",
        "2J",
        "3J",
        "?2J",
        "K",
        "1K",
        "2K",
        "5X",
        "5P",
        "5L",
        "5M",
        "5@",
        "5S",
        "5T",
        "99b",
    ),
    *(
        f"?{n}{c}"
        for n in (1, 3, 5, 6, 7, 9, 12, 25, 47, 66, 69, 1000, 1002, 1003, 1004)
        for c in "hl"
    ),
    *(
        f"?{n}{c}"
        for n in (1005, 1006, 1015, 1016, 1034, 1047, 1048, 1049, 2004, 2026)
        for c in "hl"
    ),
    *("4h", "20h", "2l", "5n", "6n", "?6n", "?15n", "?26n", "c", ">c", "=c", ">q", "0x", "1x"),
    *(f"{n}t" for n in (1, 2, 5, 11, 13, 14, 18, 19, 20, 21)),
    *("8;1;1t", "3;0;0t", "9;1t", "22;0t", "23;0t", "4;1;1t"),
    *("!p", "?25$p", "2$w", "1;1;9;9$x", "1;1;9;9$z", "1;2;3;4;5*y", "1 q", '1"q', "2 D", "1'|"),
    *(">1u", "=5;1u", "<u", "?u", ">4;2m", "?4m", "#{", "#}", "#P", "#Q", "1#R", "0#y"),
]
_OSC = [
    *("0;title", "1;icon", "2;title", "L;label", "l;label", "I;file", "3;PROP=x"),
    *("4;1;rgb:ff/00/00", "4;1;?", "5;0;red", "104", "105;0", "106"),
    *(f"{n};#ff0000" for n in range(10, 20)),
    *(f"{n};?" for n in range(10, 20)),
    *(f"{n}" for n in range(110, 120)),
    *("7;file://host/etc/passwd", "6;1;bg;red;brightness;9", "9;notify", "9;4;1;50", "9;9;/tmp"),
    *("8;;http://evil.invalid", "8;id=1;file:///etc/passwd", "8;;", "22;crosshair", "46;/tmp/log"),
    *("50;fixed", "51;e", "60", "52;c;ZWNobyBvd25lZA==", "52;p;?", "52;s;!", "52;c0;"),
    *("99;i=1:d=0;hello", "133;A", "133;C", "633;A", "633;P;Cwd=/", "697;x", "777;notify;a;b"),
    *("1337;SetMark", "1337;StealFocus", "1337;ClearScrollback", "1337;CurrentDir=/"),
    *("1337;SetProfile=x", "1337;CopyToClipboard=", "1337;EndCopy", "1337;RequestAttention=yes"),
    *("1337;File=name=YQ==;inline=1:AAAA", "1337;SetKeyLabel=F1=rm", "1337;Custom=id=1:x"),
    *(
        "5522;type=read",
        "66;s=2;big",
        "7777;canary",
        "21;title",
        "30001",
        "30101",
        "440;x",
        "1339;x",
    ),
]
_DCS = [
    *("q#0;2;0;0;0~~@@vv$-", "0;0;0q#1~", '0;1q"1;1;9;9', "1$r0m", "$qm", '$q"p', "$q q", "$qr"),
    *("+q544e", "+p544e", "1$t1", "0$u", "tmux;\x1b\x1b]0;x\x07", "tmux;\x1b\x1b[31m", "1000p"),
    *("0;0|17/6c73", "1;1{@sc", "=1s", "=2s", "2000p", "@kitty-cmd{}", "!|41", ">|x", "1+r544e=78"),
]
_APC = [
    *("Ga=T,f=100,s=1,v=1;AAAA", "Ga=d", "Ga=q,i=31,s=1,v=1,t=f;L2V0Yy9wYXNzd2Q=", "Gm=1;AAAA"),
    *("Gi=1,a=p", "kitty", "canary7777", "Ga=t,t=s;x", "Ga=f,r=1", ""),
]
_ESC = [
    *"cDEHMNOVWXZ6789=>lmno|}~<FP]^_[\\",
    *("#3", "#4", "#5", "#6", "#8", "(0", "(B", ")0", "*A", "+B", "-A", ".A", "/A", "%G", "%@"),
    *(" F", " G", " L", " M", " N", "!x", '"x', "$(B", "$)C", "&x", "'x", ",x"),
]
_HIDDEN = [
    *("\u061c", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2028"),
    *("\u2029", "\u2066", "\u2067", "\u2068", "\u2069", "\u206a", "\u206f", "\ufeff", "\u2060"),
    *("\u200b", "\u200c", "\u200d", "\u00ad", "\ufe0e", "\ufe0f", "\ufff9", "\ufffa", "\ufffb"),
    *("\ud800", "\udfff", "\udc9b", "\U000e0001", "\U000e0041", "\U000e007f", "\u180e", "\u0300"),
]
_MARKUP = [
    *("[@click=app.exit]x[/]", "[@click=app.exit()]x[/@click=]", "[link=http://e.invalid]x[/link]"),
    *(
        "[on red]x[/]",
        "[/nope]",
        "[b",
        "[/]",
        "[red][blue]",
        r"\[x]",
        "[@click=app.bell('x')]",
        "$x",
    ),
    *("[x](http://e.invalid)", "[x](<javascript:a>)", "![x](http://e.invalid/a.png)", "[x][1]"),
    *("<http://e.invalid>", "http://e.invalid", "www.e.invalid", "[1]: http://e.invalid 'x'"),
    *(
        "<script>x</script>",
        "<a href='x'>x</a>",
        "<!-- x -->",
        "<?x?>",
        "<![CDATA[x]]>",
        "<div>\nx",
    ),
    *(f"&#{n};" for n in (7, 8, 9, 10, 12, 13, 27, 127, 133, 155, 157, 8238, 8294, 55296, 1114112)),
    *("&#x1b;[31m", "&#x9b;31m", "&#x202e;", "&NewLine;", "&Tab;", "&zwnj;", "&lrm;", "&rlm;"),
    *("```\x1b[31m\nx\n```", "``` \x9b31m\nx", "~~~ python\x07\nx", "# \x1b]0;t\x07", "> \x1b[2J"),
    *(
        "- \x1b[31m",
        "1. \x9b2J",
        "|\x1b[31m|b|\n|-|-|\n|\x9b1m|\x07|",
        "`\x1b[31m`",
        "**\x1b[31m**",
    ),
    *(
        "x\n===\x1b[31m",
        "    \x1b[31m",
        "***\x1b***",
        "~~\x9b~~",
        "\\\x1b[31m",
        "--\x1b[31m-",
        "\x1b- x",
    ),
]


def known_payloads() -> tuple[str, ...]:
    """At least 500 different ones, in 7-bit and 8-bit forms."""
    found: dict[str, None] = {}
    found.update((f"{start}{body}", None) for body in _CSI for start in ("\x1b[", CSI8))
    for at, body in enumerate(_OSC):
        end = _ENDS[at % len(_ENDS)]
        found.update((f"{start}{body}{end}", None) for start in ("\x1b]", OSC8))
    for at, body in enumerate(_DCS):
        end = _ENDS[1 + at % 3]
        found.update((f"{start}{body}{end}", None) for start in ("\x1bP", DCS8))
    for at, body in enumerate(_APC):
        end = _ENDS[1 + at % 3]
        starts = ("\x1b_", "\x9f", "\x1b^", "\x9e", "\x1bX", "\x98")
        found.update((f"{start}{body}{end}", None) for start in starts)
    found.update((f"\x1b{body}", None) for body in _ESC)
    found.update((chr(code), None) for code in (*range(0x20), *range(0x7F, 0xA0)))
    found.update((f"a{char}b", None) for char in _HIDDEN)
    found.update((body, None) for body in _MARKUP)
    # Overstriking, half a sequence, one in another, one cut by a control character.
    found.update(
        (body, None) for body in ("ok\x08\x08rm", "safe\rrm -rf", "\x1b", "\x1b[", "\x1b]52")
    )
    found.update(
        (body, None) for body in ("\x1b[\x1b[31m", "\x1b[3\x001m", "\x1b[3\n1m", "\x9b\x9b1m")
    )
    return tuple(found)


_PIECES = (
    *("\x1b", "\x1b[", "\x9b", "\x1b]", "\x9d", "\x1bP", "\x90", "\x1b_", "\x9f", "\x07", "\x1b\\"),
    *(
        "\x9c",
        "m",
        "H",
        "J",
        "h",
        "l",
        ";",
        "?",
        "31",
        "2",
        "8;;",
        "52;c;",
        "0;",
        "7777",
        "$",
        "!",
        "q",
    ),
    *(
        "[",
        "]",
        "(",
        ")",
        "`",
        "```",
        "*",
        "**",
        "_",
        "~~",
        "#",
        "|",
        "-",
        ">",
        "\n",
        "\n\n",
        "  ",
        "\t",
    ),
    *(
        "\r",
        "\x00",
        "\x08",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u200f",
        "\u2028",
        "\ufeff",
        "\ud800",
        "\U000e0041",
    ),
    *(
        "&#27;",
        "&#x9b;",
        "<b>",
        "</b>",
        "[/]",
        "[@click=app.exit]",
        "[link=x]",
        "![",
        "](",
        "http://",
    ),
    *("a", "Z", "é", "中", "🙂", "\u0301", " ", "word", "\\", '"', "'", "{", "}", "1.", "|-|-|\n"),
)


def random_payload(rng: random.Random) -> str:
    """Up to a dozen fragments of sequences, Markdown, markup and text, or any characters at all."""
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x300)) for _ in range(rng.randrange(1, 16)))
    return "".join(rng.choices(_PIECES, k=rng.randrange(1, 12)))


def pieces(text: str, rng: random.Random, n: int) -> Iterator[str]:
    """`text` cut at `n - 1` random places, as tokens cut it."""
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(n - 1))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        yield text[start:end]
