"""Floor 4: HTTP. The only importer of aiohttp.web (with app.py)."""
