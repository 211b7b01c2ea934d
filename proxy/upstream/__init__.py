"""Floor 2: the outside world. The only importer of aiohttp's client and of aiohttp_socks."""
