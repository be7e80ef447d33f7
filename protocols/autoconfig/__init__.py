"""How mail programs learn where their server is: one address typed, the rest told. HTTP by aiohttp, on the
administrator's listener; XML by expat.

Obeyed: Thunderbird's configuration file, version 1.1, as draft-ietf-mailmaint-autoconfig describes it
(/.well-known/autoconfig/mail/config-v1.1.xml and /mail/config-v1.1.xml), and Outlook's Autodiscover in plain old XML
([MS-OXDSCLI], schemas outlook/requestschema/2006 and outlook/responseschema/2006a).

All sites are named, in the order of the configuration: programs try the first, people may choose another. Nobody signs in,
and the answer depends on the domain alone, so that nothing can be learnt of who has an account. It names nothing but what
the zone says (`angarium dns`).

Left out on purpose: Autodiscover by SOAP and the 2010 and later JSON forms (they lead to Exchange only); ActiveSync's
response schema (we do not speak it); any document type in what is sent to us (entities need one).
"""
