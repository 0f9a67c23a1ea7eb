"""The model that is served, as far as the router needs to know it."""

from dataclasses import dataclass

from pdserve.errors import UnknownModelError
from pdserve.models.read import read_config
from pdserve.models.source import resolve_model
from pdserve.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Tokenizer and limits of one model. `context_length` is prompt + output, in tokens."""

    names: tuple[str, ...]
    context_length: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    tokenizer: Tokenizer

    @property
    def id(self) -> str:
        """The name that it is listed under."""
        return self.names[0]

    def check_name(self, name: str) -> None:
        """Raises `UnknownModelError` when a client asks for another model; empty means any."""
        if name and name not in self.names:
            raise UnknownModelError(
                f"model {name!r} is not served here; {self.id!r} is", field="model", limit=self.id
            )


def load_served_model(name: str) -> ServedModel:
    """Finds the model `name` and reads its configuration and tokenizer, not its weights.

    Raises `UnknownModelError` or `UnsupportedModelError`.
    """
    source = resolve_model(name, weights=False)
    config = read_config(source)
    return ServedModel(
        names=(source.id, name),
        context_length=config.max_position,
        vocab_size=config.vocab_size,
        eos_token_ids=frozenset(config.eos_token_ids),
        tokenizer=Tokenizer.load(source),
    )
