"""Questions and answers that a base model wrote itself, mixed into a training so that it forgets less."""
