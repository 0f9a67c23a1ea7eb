"""The router's HTTP API: OpenAI's, and what machines ask of the process."""
