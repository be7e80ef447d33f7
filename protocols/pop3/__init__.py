"""POP3: RFC 1939, for programs that take INBOX away and know no other mailbox.

With: RFC 2449 CAPA, PIPELINING, RESP-CODES, EXPIRE and IMPLEMENTATION, RFC 2595 STLS, RFC 3206 AUTH-RESP-CODE with SYS/TEMP,
SYS/PERM and AUTH, RFC 5034 AUTH with PLAIN (RFC 4616), SCRAM-SHA-256 (RFC 7677) and, where a site takes tokens, OAUTHBEARER
(RFC 7628), RFC 6856 UTF8 and LANG, RFC 8314 POP3S;
of RFC 1939's optional words TOP, UIDL, USER and PASS.

Left out on purpose: APOP (it needs the password itself, or what is as good as it, kept at the server, and a digest of MD5 to
protect it: SCRAM does that properly), so that the greeting has no timestamp. LOGIN-DELAY: nobody is made to wait but who
guesses. No lock on the maildrop, and so never IN-USE: ops/decisions/pop3.md. Surrogates of internationalised messages (RFC
6858): a message is given byte for byte with any mode, since one that is refused would stay in the maildrop for ever.

At the door for sites, by which sessions are carried to where the mail is: AUTH EXTERNAL (RFC 4422 §A) and XCLIENT, neither of them
at any other door (ops/decisions/sessions-are-carried.md).

parser (bytes → Request) → session (the loop) → commands/<word> → writer (Reply → bytes). maildrop: what a session sees.
"""
