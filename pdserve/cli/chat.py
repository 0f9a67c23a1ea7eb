"""`pdserve chat`: a conversation on the terminal."""

import argparse
import asyncio
import sys

from pdserve.cli.client import (
    add_connection_flags,
    add_timeout_flag,
    async_router_client,
    router_tls,
)
from pdserve.cli.generate import show_answer
from pdserve.cli.ledger_view import answer_view
from pdserve.cli.sampling_flags import add_sampling_flags, options_from
from pdserve.cli.terminal import output_console, write_text
from pdserve.cli.terms_flags import add_terms_flags, terms_from
from pdserve.client import Answer, Message
from pdserve.errors import InvalidRequestError, OverloadedError

_HELP = "Ctrl-D ends, Ctrl-C stops an answer, /reset starts afresh, /explain shows the last ledger."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds where to ask and how to answer."""
    add_connection_flags(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--model", default="", help="the model that must answer")
    add_timeout_flag(parser)
    parser.add_argument("--explain", action="store_true", help="show the ledger of each answer")
    add_sampling_flags(parser)
    add_terms_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Talks until the input ends; 0 then, 130 after Ctrl-C at the prompt."""
    conversation = Conversation(arguments)
    print(_HELP, file=sys.stderr)
    # The terminal is read outside of the event loop: what a person types has no deadline.
    with asyncio.Runner() as runner:
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                print()
                return 0
            if line == "/reset":
                conversation.reset()
            elif line == "/explain":
                conversation.explain()
            elif line.startswith("/"):
                print(_HELP, file=sys.stderr)
            elif line:
                _take_turn(runner, conversation, line)


def _take_turn(runner: asyncio.Runner, conversation: "Conversation", line: str) -> None:
    try:
        runner.run(conversation.ask(line))
    except KeyboardInterrupt:
        write_text(" [stopped]\n")
    except (InvalidRequestError, OverloadedError) as error:  # another turn may well work
        print(f"error: {error}", file=sys.stderr)


class Conversation:
    """The messages so far. An answer that was stopped or failed leaves no trace in them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._messages: list[Message] = []
        self._last: Answer | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets all but the system message."""
        system = self._arguments.system
        self._messages = [Message("system", system)] if system else []

    def explain(self) -> None:
        """Shows where the time of the last answer went."""
        if self._last is not None:
            output_console().print(answer_view(self._last))

    async def ask(self, text: str) -> None:
        """Streams the answer to `text` and remembers both."""
        arguments = self._arguments
        question = Message("user", text)
        async with async_router_client(arguments.router, router_tls(arguments)) as client:
            options = options_from(arguments) | terms_from(arguments)
            stream = client.stream([*self._messages, question], **options)
            self._last = await show_answer(stream)
        self._messages += [question, Message("assistant", self._last.text)]
        if arguments.explain:
            self.explain()
