"""How the feedback store's layout came about: Alembic migrations, run by hfi.feedback.database when an older store is opened."""
