"""The partitions of the log, by name. Names are letters, digits and hyphens: they are part of stream names."""

DIRECTORY = "directory"


def mail(site: str, number: int = 1) -> str:
    """Where accounts of a site keep their mail; an account's record says which."""
    return f"mail-{site}-{number}"


def queue(site: str) -> str:
    """The site's outbox."""
    return f"queue-{site}"


def of_site(site: str) -> tuple[str, ...]:
    """All that a single site is home of."""
    return (DIRECTORY, mail(site), queue(site))
