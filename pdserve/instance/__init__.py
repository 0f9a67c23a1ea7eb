"""What a prefill and a decode process have in common: engine, requests, load reports, life."""
