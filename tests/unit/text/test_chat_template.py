import pytest

from pdserve.errors import InvalidRequestError, UnsupportedModelError
from pdserve.text.chat_template import ChatTemplate, Message

USER = Message("user", "hi <b> & ü")


def render(source: str, *messages: Message) -> str:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(
        messages or [USER]
    )


def test_messages_and_special_tokens_are_at_hand() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert render(source, Message("system", "be"), USER) == (
        "<s>[system]be</s>[user]hi <b> & ü</s>[assistant]"
    )


def test_json_is_not_escaped() -> None:
    assert render("{{ messages | tojson }}") == '[{"role": "user", "content": "hi <b> & ü"}]'


def test_blocks_leave_no_blank_lines() -> None:
    assert (
        render("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n")
        == "x\n"
    )


def test_loop_controls_and_generation_blocks_work() -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% break %}{% endfor %}"
    )
    assert render(source, Message("user", "a"), Message("user", "b")) == "a"


def test_the_current_date_is_at_hand() -> None:
    assert len(render("{{ strftime_now('%Y') }}")) == 4


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].missing.more }}",
        "{{ 1 // 0 }}",
    ],
)
def test_what_the_template_refuses_is_the_requests_fault(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="chat template refuses") as caught:
        render(source)
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% for i in range(1000000) %}x{% endfor %}",
    ],
)
def test_templates_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="chat template refuses"):
        render(source)


@pytest.mark.parametrize(
    ("messages", "text"),
    [([], "messages is empty"), ([USER, Message("root", "x")], r"messages\[1\].role is 'root'")],
)
def test_bad_conversations_name_the_message(messages: list[Message], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text) as caught:
        ChatTemplate("{{ messages }}", {}).render(messages)
    assert caught.value.field == "messages"


def test_a_broken_template_is_the_models_fault() -> None:
    with pytest.raises(UnsupportedModelError, match="line 2"):
        ChatTemplate("ok\n{% if %}", {})
