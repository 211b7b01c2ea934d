"""Floor 2: what must survive. The only importer of SQLAlchemy."""
