"""Rules as ordered lists of small checks: the first that speaks gives reason and message. Pure."""
