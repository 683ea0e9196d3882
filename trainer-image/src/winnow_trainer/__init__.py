"""Import rows, train, evaluate, write checkpoints."""
