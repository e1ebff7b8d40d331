"""Whether the scores are faithful: ground truth by retraining, and experiments on it."""
