"""The noun outbox: messages on their way to other hosts. One entity is one queued message: its id is the command's
63-bit id in hexadecimal. Lives in the site's queue partition."""
