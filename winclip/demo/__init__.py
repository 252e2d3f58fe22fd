"""The drawn sample and the training of the demo backbone."""
