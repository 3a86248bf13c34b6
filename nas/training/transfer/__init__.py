"""Trained networks on a user's pictures: probed while frozen, fine-tuned one against the other, and the winner fully."""
