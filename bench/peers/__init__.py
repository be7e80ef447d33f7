"""Other servers, measured beside ours with the same mail and the same client: each in a configuration that its own people
would call fair, with every change on disk before it is acknowledged."""
