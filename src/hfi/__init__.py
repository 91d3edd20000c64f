"""Human Feedback Inversion: people judge pictures, a text-to-image model stops drawing what they flagged."""

__version__ = "0.1.0"
