"""What looks at pictures: opening them safely, CLIP embeddings (cached), judges. Serves feedback, reward and evaluation."""
