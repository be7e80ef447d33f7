"""SMTP and LMTP: mail that comes in, and the relay that hands mail for elsewhere to a smarthost.

Obeyed: RFC 5321 (SMTP), 6409 (submission), 8314 (submissions), 2033 (LMTP), 1870 (SIZE), 2920 (PIPELINING), 6152
(8BITMIME), 6531 (SMTPUTF8), 3030 (CHUNKING), 3207 (STARTTLS), 2034 and 3463 (enhanced codes), 4954 (AUTH), 4616
(PLAIN), 5802 and 7677 (SCRAM-SHA-256), 7628 (OAUTHBEARER, where a site takes tokens), 3464 and 6533 (delivery status notifications).

Left out on purpose: BINARYMIME (IMAP literals cannot carry what it would let in, and few smarthosts take it on), DSN
parameters of RFC 3461 (an unannounced parameter is refused with 555), EXPN and VRFY's answer (they tell strangers who
lives here), TURN and its kin, AUTH on port 25 (RFC 8314 §3.3: people submit on 465 and 587).
"""
