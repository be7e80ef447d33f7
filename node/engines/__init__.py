"""The engines that a site runs for itself: a nats-server for the log, a PostgreSQL for the tables. Each module knows
to find, prepare, start and ask one of them; none speaks to it for any other purpose.
"""
