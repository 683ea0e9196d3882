"""The four kinds: for each one what it sees (Observed) and what it decides (plan). Pure."""
