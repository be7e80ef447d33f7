"""Moving in: mail of another system, read where it lies and brought to a running site by its API.

`model` says what a source is; `maildir`, `mbox` and `imap` are the sources; `journal` remembers what was brought, `bringing`
brings it. Nothing here knows the site's insides: the door is the HTTP API, so the site stays up meanwhile.
"""
