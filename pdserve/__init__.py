"""pdserve serves large language models with prefill and decode disaggregated."""

__version__ = "0.1.0"
