"""A package, because tests/unit/report has a test_report.py too."""
