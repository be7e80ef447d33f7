"""IMAP: RFC 3501 (IMAP4rev1) and RFC 9051 (IMAP4rev2), both spoken to every client.

With: RFC 2177 IDLE, RFC 2342 NAMESPACE, RFC 2971 ID, RFC 3348 and 5258 CHILDREN and LIST-EXTENDED, RFC 3502 MULTIAPPEND,
RFC 3516 BINARY (fetch), RFC 3691 UNSELECT, RFC 4315 UIDPLUS, RFC 4731 ESEARCH, RFC 4959 SASL-IR, RFC 5032 WITHIN, RFC 5161
ENABLE, RFC 5182 SEARCHRES, RFC 5530 response codes, RFC 5802 and 7677 SCRAM-SHA-256, RFC 5819 LIST-STATUS, RFC 6154 SPECIAL-USE
and CREATE-SPECIAL-USE, RFC 6851 MOVE, RFC 7162 CONDSTORE and QRESYNC, RFC 7888 LITERAL+, RFC 7889 APPENDLIMIT, RFC 8438
STATUS=SIZE, RFC 8474 OBJECTID, RFC 8514 SAVEDATE, RFC 8970 PREVIEW, RFC 9755 UTF8=ACCEPT.

Left out on purpose: LITERAL- (LITERAL+ says more, and a server may say only one of them), CATENATE, ACL, QUOTA, SORT, THREAD,
NOTIFY and COMPRESS: not promised by CAPABILITY. AUTH=LOGIN is SMTP's; here the LOGIN command serves the same clients. A
literal8 with NULs is refused by APPEND, as RFC 3516 §4.4 lets a server do: messages are kept and given byte for byte.

A session whose mail is at another site is carried there (carrying.py), to a door where sites only come in: RFC 4422 §A EXTERNAL
and the fields of RFC 2971 that proxies use, neither of them at any other door (ops/decisions/sessions-are-carried.md).

parser (bytes → Request) → session (the loop) → commands/<word> → writer (values → bytes). errors: a refusal in IMAP's words.
"""
