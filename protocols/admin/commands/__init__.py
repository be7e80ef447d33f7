"""One file a noun. Each function answers one row of routes.py and awaits nothing but the ports."""
