"""One self-contained HTML file for a finished study, and the before/after strip for a README."""
