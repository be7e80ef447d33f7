-- What a site's tables hold: made only by folding the log, thrown away and made again by `angarium rebuild`.
-- Run with search_path set to the schema that shall hold them, so that a rebuild stands beside the living tables.

CREATE TABLE folded (                 -- how far each partition has been folded, in the same transaction as its rows
    partition  text PRIMARY KEY,
    position   bigint NOT NULL,
    digest     bytea  NOT NULL,         -- rolling, over (position, payload, outcome) of every event
    events     bigint NOT NULL DEFAULT 0,
    pruned_at  bigint NOT NULL DEFAULT 0
);

-- Commands already folded: a repeated one is passed over. By partition, so that what is remembered of one does not hang
-- on how far the others had come: a rebuild folds them in another order.
CREATE TABLE command (
    partition text NOT NULL,
    id        bytea NOT NULL,
    events    smallint NOT NULL,
    position  bigint NOT NULL,
    at        bigint NOT NULL,          -- unix seconds of its last event
    PRIMARY KEY (partition, id)
);
CREATE INDEX command_at ON command (partition, at);

CREATE TABLE quarantine (               -- events that could not be folded, and what came after them for a held entity
    partition text NOT NULL,
    position  bigint NOT NULL,
    noun      text NOT NULL,
    entity    text NOT NULL,
    reason    text NOT NULL,
    held      boolean NOT NULL,         -- not the event's own fault: its entity waits for a mended release and a rebuild
    PRIMARY KEY (partition, position)
);

-- What lets the tables be taken back to an earlier position (storage/rollback.py), exactly.

CREATE TABLE digest_at (                -- at the first event of every 256 positions: sites are compared there
    partition  text NOT NULL,
    position   bigint NOT NULL,
    digest     bytea NOT NULL,
    events     bigint NOT NULL,
    pruned_at  bigint NOT NULL,
    PRIMARY KEY (partition, position)
);

CREATE TABLE repeated (                 -- events passed over as repeated: with `quarantine`, the outcome of every event
    partition  text NOT NULL,
    position   bigint NOT NULL,
    PRIMARY KEY (partition, position)
);

CREATE TABLE touched (                  -- the last event of every entity
    partition  text NOT NULL,
    noun       text NOT NULL,
    entity     text NOT NULL,
    position   bigint NOT NULL,
    PRIMARY KEY (partition, noun, entity)
) WITH (fillfactor = 70);

CREATE TABLE command_before (           -- what the event at `position` took from the table of commands
    partition     text NOT NULL,
    position      bigint NOT NULL,
    id            bytea NOT NULL,
    events        smallint NOT NULL,
    was_position  bigint NOT NULL,
    at            bigint NOT NULL,
    PRIMARY KEY (partition, position, id)
);

CREATE TABLE epoch_ended (              -- as the log announced it: what lies in the epoch beyond `last` is not in history
    partition  text NOT NULL,
    epoch      bigint NOT NULL,
    last       bigint NOT NULL,
    PRIMARY KEY (partition, epoch)
);

-- directory -----------------------------------------------------------------------------------------------------------

CREATE TABLE domain (
    name            text PRIMARY KEY,
    catch_all       text NOT NULL,
    plus            boolean NOT NULL,
    quota_storage   bigint NOT NULL DEFAULT 0,  -- bytes, 0 = no limit; of accounts that have none of their own
    quota_messages  bigint NOT NULL DEFAULT 0,
    quota_soft      smallint[] NOT NULL DEFAULT '{90}', -- percentages
    undelete_days   integer NOT NULL DEFAULT 14         -- for so long what people of it expunged can be restored
);

CREATE TABLE account (
    id             bigint PRIMARY KEY,
    address        text NOT NULL UNIQUE,
    domain         text NOT NULL,
    name           text NOT NULL,
    partition      text NOT NULL,
    administrator  boolean NOT NULL,
    suspended      boolean NOT NULL DEFAULT false,
    pop3_since     bigint NOT NULL DEFAULT 0,  -- unix seconds, only mail that arrived then or later is offered by POP3
    file_sent      boolean NOT NULL DEFAULT false,  -- mail that it submits is filed in its \Sent mailbox
    quota_storage  bigint,                     -- NULL = as the domain has it
    quota_messages bigint,
    quota_soft     smallint[],
    shared         boolean NOT NULL DEFAULT false   -- nobody signs in with it
);
CREATE INDEX account_domain ON account (domain, address);

CREATE TABLE credential (               -- label '' = the password; others are app passwords
    account        bigint NOT NULL,
    label          text NOT NULL,
    argon2         text NOT NULL,
    scram_sha_256  text NOT NULL,
    position       bigint NOT NULL,
    PRIMARY KEY (account, label)
);

CREATE TABLE alias (
    address  text PRIMARY KEY,
    domain   text NOT NULL,
    targets  text[] NOT NULL
);
CREATE INDEX alias_targets ON alias USING gin (targets);

CREATE TABLE distribution_group (
    address  text PRIMARY KEY,
    domain   text NOT NULL,
    name     text NOT NULL,
    members  text[] NOT NULL
);
CREATE INDEX distribution_group_members ON distribution_group USING gin (members);

-- mailbox -------------------------------------------------------------------------------------------------------------

CREATE TABLE content (                  -- a message described once, however many mailboxes hold it
    hash         bytea PRIMARY KEY,
    size         bigint NOT NULL,
    sent         bigint,
    segments     bytea NOT NULL,        -- MessagePack of cluster.domain.mailbox.content.Segment, in order
    description  bytea NOT NULL         -- MessagePack of cluster.formats.mime.Description
);
ALTER TABLE content ALTER segments SET STORAGE MAIN, ALTER description SET STORAGE MAIN;

CREATE TABLE mail_account (
    account      bigint PRIMARY KEY,
    partition    text NOT NULL,
    uidvalidity  bigint NOT NULL        -- the last one given
);

CREATE TABLE mail_partition (
    partition         text PRIMARY KEY,
    uidvalidity_base  bigint NOT NULL   -- where an account without a fact yet starts: the tail that was lost may have known it
);

CREATE TABLE mailbox (
    id           bigint PRIMARY KEY,
    account      bigint NOT NULL,
    name         text NOT NULL,
    uidvalidity  bigint NOT NULL,
    uidnext      bigint NOT NULL,
    modseq       bigint NOT NULL,
    special_use  text NOT NULL,
    keywords     text[] NOT NULL DEFAULT '{}',      -- every one that was ever used in it
    messages     bigint NOT NULL DEFAULT 0,
    unseen       bigint NOT NULL DEFAULT 0,
    deleted      bigint NOT NULL DEFAULT 0,
    bytes        bigint NOT NULL DEFAULT 0,
    -- Deferrable, so that one statement may rename a/b to a and a/b/b to a/b.
    CONSTRAINT mailbox_name UNIQUE (account, name) DEFERRABLE INITIALLY IMMEDIATE
) WITH (fillfactor = 50);

CREATE TABLE subscription (
    account  bigint NOT NULL,
    name     text NOT NULL,
    PRIMARY KEY (account, name)
);

CREATE TABLE annotation (               -- RFC 5464
    account  bigint NOT NULL,
    mailbox  bigint NOT NULL,           -- 0 = of the account itself
    whose    bigint NOT NULL,           -- 0 = everybody's
    entry    text NOT NULL,
    value    bytea NOT NULL,
    PRIMARY KEY (mailbox, account, whose, entry)
);
CREATE INDEX annotation_account ON annotation (account);

CREATE TABLE message (                  -- never updated
    mailbox        bigint NOT NULL,
    uid            bigint NOT NULL,
    content        bytea NOT NULL,
    size           bigint NOT NULL,
    internal_at    bigint NOT NULL,
    internal_zone  smallint NOT NULL,
    saved_at       bigint NOT NULL,
    position       bigint NOT NULL,     -- of the event that made it
    thread         bigint NOT NULL,     -- of the event that brought its first copy into the account
    origin_uid     bigint NOT NULL,     -- UID that it was copied from, 0 = it came from outside
    PRIMARY KEY (mailbox, uid)
);

-- Flags stand apart: narrow and often updated, with no tree over modseq, so that updates stay on their page (HOT).
CREATE TABLE flag (
    mailbox   bigint NOT NULL,
    uid       bigint NOT NULL,
    modseq    bigint NOT NULL,
    flags     smallint NOT NULL,
    keywords  text[] NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_limit = 1000,
    autovacuum_analyze_scale_factor = 0.02);
-- Block ranges only: since PostgreSQL 16 such an index leaves updates on their page.
CREATE INDEX flag_modseq ON flag USING brin (modseq) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE expunged (                 -- what VANISHED tells; and content outlives sessions that still hold its UID
    mailbox        bigint NOT NULL,
    uid            bigint NOT NULL,
    modseq         bigint NOT NULL,
    flags          smallint NOT NULL,
    keywords       text[] NOT NULL,
    content        bytea NOT NULL,
    size           bigint NOT NULL,
    internal_at    bigint NOT NULL,
    internal_zone  smallint NOT NULL,
    saved_at       bigint NOT NULL,
    thread         bigint NOT NULL,
    at             bigint NOT NULL,
    place          bigint NOT NULL DEFAULT 0,       -- it went as the nth from its mailbox: its UID where it can be restored
    moved          boolean NOT NULL DEFAULT false,  -- it is there as another message
    taken          bigint NOT NULL DEFAULT 0,       -- position since which it cannot be restored and names no content, 0 = it can
    PRIMARY KEY (mailbox, uid)
);
CREATE INDEX expunged_modseq ON expunged (mailbox, modseq);
CREATE INDEX expunged_place ON expunged (mailbox, place) WHERE taken = 0;
CREATE INDEX expunged_taken ON expunged (mailbox, taken) WHERE taken > 0;

CREATE TABLE vanished (                 -- of these UIDs those that are not there count as gone at `modseq`: salvage reaffirmed them
    mailbox  bigint NOT NULL,
    first    bigint NOT NULL,
    last     bigint NOT NULL,
    modseq   bigint NOT NULL,
    PRIMARY KEY (mailbox, modseq, first)
);

CREATE TABLE mailbox_right (            -- who beside its owner may do what with a mailbox (RFC 4314)
    mailbox     bigint NOT NULL,
    identifier  text NOT NULL,          -- anyone, an account's id, a group's address
    negative    boolean NOT NULL,       -- these are taken away
    rights      text NOT NULL,
    PRIMARY KEY (mailbox, identifier, negative)
);
CREATE INDEX mailbox_right_identifier ON mailbox_right (identifier);

CREATE TABLE seen_by (                  -- what others than the owner have read; the owner's \Seen is in `flag`
    mailbox  bigint NOT NULL,
    uid      bigint NOT NULL,
    account  bigint NOT NULL,
    seen     boolean NOT NULL,
    modseq   bigint NOT NULL,
    PRIMARY KEY (mailbox, uid, account)
);
CREATE INDEX seen_by_account ON seen_by (mailbox, account, modseq);

CREATE TABLE mailbox_deleted (
    id           bigint PRIMARY KEY,
    account      bigint NOT NULL,
    name         text NOT NULL,
    uidvalidity  bigint NOT NULL,
    position     bigint NOT NULL,
    at           bigint NOT NULL
);
CREATE INDEX mailbox_deleted_account ON mailbox_deleted (account);

-- tails that were lost ------------------------------------------------------------------------------------------------

CREATE TABLE salvaged (                 -- up to which sequence the tail of an epoch is salvaged
    partition  text NOT NULL,
    epoch      bigint NOT NULL,
    upto       bigint NOT NULL,
    PRIMARY KEY (partition, epoch)
);

CREATE TABLE salvage_report (           -- what could not be decided again
    partition  text NOT NULL,
    position   bigint NOT NULL,         -- in the tail
    reported   bigint NOT NULL,         -- position of the report
    noun       text NOT NULL,
    entity     text NOT NULL,
    what       text NOT NULL,
    why        text NOT NULL,
    event      bytea NOT NULL,          -- its envelope as it was, empty if it was large
    at         bigint NOT NULL,         -- unix seconds of the report
    state      text NOT NULL,           -- open, applied, dismissed
    PRIMARY KEY (partition, position)
);

-- outbox --------------------------------------------------------------------------------------------------------------

CREATE TABLE queued (
    queued     bigint PRIMARY KEY,
    partition  text NOT NULL,
    position   bigint NOT NULL,
    sender     text NOT NULL,
    account    bigint NOT NULL,
    content    bytea NOT NULL,
    body_8bit  boolean NOT NULL,
    smtputf8   boolean NOT NULL,
    queued_at  bigint NOT NULL,
    next_at    bigint NOT NULL,
    attempts   integer NOT NULL,
    handed     integer NOT NULL DEFAULT 0   -- from one site's queue to another's, so many times
);
CREATE INDEX queued_next ON queued (partition, next_at);

CREATE TABLE queued_recipient (         -- those still pending
    queued     bigint NOT NULL,
    n          integer NOT NULL,
    recipient  text NOT NULL,
    attempts   integer NOT NULL,
    code       integer NOT NULL,        -- of the last attempt
    text       text NOT NULL,
    PRIMARY KEY (queued, n)
);
