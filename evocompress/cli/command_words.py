"""Library messages as the command line says them: the library names its functions and arguments, a user of the command
needs the command or the option.
"""

from __future__ import annotations

import re

__all__ = ["as_commands"]

#: What the library writes, and what stands for it on the command line.
_WORDS = (
    (r"`repair_run\((.*?)\)`", r"`evocompress repair \1`"),
    (r"Call `fetch\('(.*?)'\)` of evocompress\.data\.download", r"Run `evocompress data \1`"),
    (r"; a resume goes on", "; `evocompress run --resume` goes on"),
    (r"is a checkpoint; pack makes", "is a checkpoint; evocompress pack makes"),
    (
        r"load\(…, strip_prefix=(['\"])(.*?)\1\) takes it away",
        r"load(…, strip_prefix=\1\2\1), or pack --strip-prefix \2, take it away",
    ),
    (
        r"^(.*) already holds a run; resume it, or choose another folder$",
        r"\1 already holds a run; `evocompress run --resume --out \1` goes on with it; or choose another --out",
    ),
    (r"say trusted=True", "say --trust"),
    (r"go on with override=True", "go on with --override"),
    (r"than max_output_bytes, which", "than --max-output-bytes, which"),
    (
        r"(put it into a module by evocompress\.load\(path, model\)\.)",
        r"\1 On the command line, evocompress unpack and inspect take it as --model.",
    ),
)


def as_commands(text: str) -> str:
    """The text with commands and options in the place of calls and arguments.

    >>> as_commands("made elsewhere. Where you know that code, say trusted=True.")
    'made elsewhere. Where you know that code, say --trust.'
    """
    for written, said in _WORDS:
        text = re.sub(written, said, text)
    return text
