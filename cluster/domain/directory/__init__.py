"""The noun directory: domains, accounts, aliases, groups. One entity is one domain: its id is the domain's name.

Copied to all sites, so that sign-in and routing work at every site, cut off or not.
"""
