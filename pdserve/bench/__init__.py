"""An open-loop load generator for servers of language models, and what it says about them."""
