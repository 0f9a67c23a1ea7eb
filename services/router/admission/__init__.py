"""Who may run, when, and how urgently: decided at the router's door."""
