"""The five kinds of training examples, and the keys that tell when two prompts are the same."""
