"""The tokenizer of the default model, against transformers on the same file."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pdserve.errors import InvalidRequestError
from pdserve.models.source import resolve_model
from pdserve.text.chat_template import Message
from pdserve.text.tokenizer import Tokenizer

pytestmark = pytest.mark.model

TEXTS = [
    "The capital of France is",
    "It's 1234567 o'clock; they'LL pay $3.50 (or 12%)!",
    "def f(x):\n    return {'a': x[1:]}  # ok\n\n\nclass A:\n\tpass\r\n",
    "你好世界 Füße naïve Привет مرحبا हिन्दी 🙂👩‍👩‍👧 \u200b\u00a0",
    "  \n\n\t  mixed \t whitespace   ",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve_model("smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def reference() -> Any:
    path = resolve_model("smollm2-135m-instruct").path
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_encode_and_decode_as_in_transformers(
    tokenizer: Tokenizer, reference: Any, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text)
    assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)


@settings(max_examples=200)
# Digits are left out: transformers cuts spaces before them as GPT-2 does, where this model's own
# tokenizer keeps every digit apart (see test_gguf_tokenizer).
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Nd", "Nl", "No"])))
def test_any_text_encodes_as_in_transformers(
    tokenizer: Tokenizer, reference: Any, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text)
    assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)


@given(st.lists(st.integers(0, 49151), max_size=30))
def test_any_tokens_decode_as_in_transformers(
    tokenizer: Tokenizer, reference: Any, ids: list[int]
) -> None:
    assert tokenizer.decode(ids) == reference.backend_tokenizer.decode(ids)


@pytest.mark.parametrize("system", [True, False])
def test_conversations_render_as_in_transformers(
    tokenizer: Tokenizer, reference: Any, system: bool
) -> None:
    messages = [Message("user", "Hi! 🙂"), Message("assistant", "Hello."), Message("user", "Bye")]
    if system:
        messages.insert(0, Message("system", "Be brief."))
    expected = reference.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert tokenizer.chat(messages) == expected


def test_special_ids_and_size_are_the_models(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 49152
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_ids == (2,)


def test_an_empty_conversation_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="messages is empty"):
        tokenizer.chat([])
