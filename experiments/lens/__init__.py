"""The lens: a variant's gradient itself, against the true one where it can be enumerated, and on a model."""
