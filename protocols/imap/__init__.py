"""IMAP: RFC 3501 (IMAP4rev1) and RFC 9051 (IMAP4rev2), both spoken to every client.

With: RFC 2177 IDLE, RFC 2342 NAMESPACE, RFC 2971 ID, RFC 3348 and 5258 CHILDREN and LIST-EXTENDED, RFC 3502 MULTIAPPEND,
RFC 3516 BINARY (fetch), RFC 3691 UNSELECT, RFC 4315 UIDPLUS, RFC 4469 CATENATE, RFC 4731 ESEARCH, RFC 4959 SASL-IR, RFC 4978
COMPRESS=DEFLATE, RFC 5032 WITHIN, RFC 5161 ENABLE, RFC 5182 SEARCHRES, RFC 5256 SORT, THREAD=ORDEREDSUBJECT and
THREAD=REFERENCES, RFC 5267 ESORT and CONTEXT=SEARCH, RFC 5464 METADATA, RFC 5465 NOTIFY, RFC 5530
response codes, RFC 5802, 5929 and 7677 SCRAM-SHA-256 and
SCRAM-SHA-256-PLUS (tls-server-end-point), RFC 7628 OAUTHBEARER (where a site takes tokens),
RFC 5819 LIST-STATUS, RFC 5957 SORT=DISPLAY, RFC 6154 SPECIAL-USE and
CREATE-SPECIAL-USE, RFC 6851 MOVE, RFC 7162 CONDSTORE and QRESYNC, RFC 7377 MULTISEARCH, RFC 7888 LITERAL+, RFC 7889 APPENDLIMIT,
RFC 8437 UNAUTHENTICATE, RFC 8438 STATUS=SIZE, RFC 8474 OBJECTID, RFC 8508 REPLACE, RFC 8514 SAVEDATE, RFC 8970 PREVIEW, RFC 9208
QUOTA and QUOTASET (STORAGE, MESSAGE), RFC 9394 PARTIAL, RFC 9585 INPROGRESS, RFC 9586 UIDONLY, RFC 9590
LIST-METADATA, RFC 9755
UTF8=ACCEPT.

Left out on purpose: LITERAL- (LITERAL+ says more, and a server may say only one of them), RFC 9755 §4's refusal of messages
with UTF-8 in their header from who has not enabled UTF8=ACCEPT (programs that bring old mail cannot mend it, and would stop at
it for ever), CONTEXT=SORT (sorted results are not kept in order), I18NLEVEL (SORT and THREAD collate by RFC 5051, SEARCH folds
case more widely), tls-exporter (RFC 9266: the library cannot give it) and tls-unique (not defined for TLS 1.3), and
NOTIFY's AnnotationChange. AUTH=LOGIN is SMTP's; here the LOGIN command serves the same clients. A literal8 with NULs is
refused by APPEND, as RFC 3516 §4.4 lets a server do: messages are kept and given byte for byte. URLs of CATENATE name one's own
messages at this server, by an absolute path.
COMPRESS and UNAUTHENTICATE are not offered to a session that is carried here from another site: the one in between follows the
replies, and who signed out could sign in as anybody by the door for sites.

A session whose mail is at another site is carried there (carrying.py), to a door where sites only come in: RFC 4422 §A EXTERNAL
and the fields of RFC 2971 that proxies use, neither of them at any other door (ops/decisions/sessions-are-carried.md).

parser (bytes → Request) → session (the loop) → commands/<word> → writer (values → bytes). errors: a refusal in IMAP's words.
"""
