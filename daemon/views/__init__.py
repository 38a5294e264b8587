"""Read-only pictures for people: status, history, reports, model card."""
