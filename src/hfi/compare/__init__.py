"""Erasers side by side on one study: methods x {words, tokens}, the same prompts and seeds, one page."""
