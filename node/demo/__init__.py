"""Three sites on this machine, mail in between, one of them killed: what `angarium demo` shows.

    place     the sites: folders, processes, kill -9
    clients   the least of a mail program, for SMTP and for IMAP over TLS
    traffic   who sends without a pause, and what was acknowledged
    readers   who reads at every site, and what is there in the end
    watching  what the control plane says, and what changed when
    page      how it is shown: live on a terminal, as lines elsewhere
    story     what happens, in order
    verdict   what came of it

It uses what an operator and his people use, and no door of its own: folders made as `angarium init` makes them, sites run by
`angarium up`, mail by SMTP and IMAP.
"""
