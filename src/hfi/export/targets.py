"""What `hfi export --to` knows. Imports no torch."""

SAFE = ("delta", "lora", "diffusers", "checkpoint", "card")  # what a person who means well can give away
TARGETS = ("embedding", "negative_embedding", *SAFE)
