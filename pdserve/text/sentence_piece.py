"""SentencePiece BPE with byte fallback, as Llama 2 and Mistral use it.

Source: Kudo and Richardson, "SentencePiece" (EMNLP 2018), section 3.2.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers

SPACE = "▁"


def sentence_piece_tokenizer(
    tokens: Sequence[str],
    scores: Sequence[float],
    mergeable: Sequence[bool],
    unknown_token: str | None,
    *,
    space_prefix: bool,
) -> Tokenizer:
    """A tokenizer without special tokens; only `mergeable` tokens are built by merges."""
    model = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=_merges(tokens, scores, mergeable),
        unk_token=unknown_token,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefix: list[normalizers.Normalizer] = [normalizers.Prepend(SPACE)] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(
    tokens: Sequence[str], scores: Sequence[float], mergeable: Sequence[bool]
) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, best score of the result first.

    SentencePiece keeps scores where BPE keeps a list of merges: it always joins the pair whose
    result scores highest, so sorting by that score yields the same order.
    """
    score_of = {
        token: score for token, score, use in zip(tokens, scores, mergeable, strict=True) if use
    }
    merges = [
        (score, token[:cut], token[cut:])
        for token, score in score_of.items()
        for cut in range(1, len(token))
        if token[:cut] in score_of and token[cut:] in score_of
    ]
    merges.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in merges]
