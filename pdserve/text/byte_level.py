"""Byte-level BPE: the alphabet that spells bytes as characters, and tokenizers made of it.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), section 2.2.
"""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pdserve.errors import UnsupportedModelError


def _alphabet() -> dict[str, int]:
    """Character -> byte: printable Latin-1 stands for itself, the rest are moved above U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(moved)
    }


BYTE_OF = _alphabet()

# How text is cut before merging, as the named models were trained.
_DIGITS_IN_THREES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_ALONE = _DIGITS_IN_THREES.replace("{1,3}", "")

_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_QWEN2 = ("qwen2", "deepseek-r1-qwen")
_SMOLLM = ("smollm",)
# "default" marks files whose converter knew no name; those of GPT-2 and OPT are among them.
_GPT2 = ("gpt-2", "gpt2", "default")


def byte_level_tokenizer(
    tokens: dict[str, int], merges: Sequence[tuple[str, str]], pre: str
) -> Tokenizer:
    """A tokenizer without special tokens; `pre` names the pre-tokenizer as GGUF files do.

    Raises `UnsupportedModelError` for a pre-tokenizer that is not known, and for merges that do
    not fit the tokens.
    """
    for left, right in merges:  # the library would panic
        if not {left, right, left + right} <= tokens.keys():
            raise UnsupportedModelError(f"merge {left!r} {right!r} does not fit the vocabulary")
    # Llama 3 takes a piece that is a token whole, even where its merges would not build it.
    model = models.BPE(vocab=tokens, merges=list(merges), ignore_merges=pre in _LLAMA3)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    if pre in _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    if pre in _GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _SMOLLM:
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if pre in _LLAMA3:
        return _split(_DIGITS_IN_THREES)
    if pre in _QWEN2:
        return _split(_DIGITS_ALONE)
    known = ", ".join((*_GPT2, *_SMOLLM, *_LLAMA3, *_QWEN2))
    raise UnsupportedModelError(f"pre-tokenizer {pre!r} is not supported; supported: {known}")


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
