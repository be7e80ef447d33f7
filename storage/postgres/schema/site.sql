-- What belongs to this site alone and is not made from the log. Run with search_path set to `site`.

CREATE TABLE IF NOT EXISTS blobs_kept (  -- contents up to here are blobs on disk (fsync done)
    partition  text PRIMARY KEY,
    position   bigint NOT NULL
);
ALTER TABLE blobs_kept ADD COLUMN IF NOT EXISTS store text NOT NULL DEFAULT '';  -- which store has them, '' = whichever is there

CREATE TABLE IF NOT EXISTS recent (      -- \Recent is not replicated: ops/decisions/imap-recent.md
    mailbox  bigint PRIMARY KEY,
    uid      bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS wanted_blob ( -- content that an event names and that is not here: it is fetched from other sites
    partition  text NOT NULL,
    hash       bytea NOT NULL,
    size       bigint NOT NULL,
    position   bigint NOT NULL,          -- of the first event that named it: nothing from there on is confirmed
    tries      integer NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL DEFAULT now(),
    denied_at  timestamptz,              -- since when every other site has answered that it has none
    lost       boolean NOT NULL DEFAULT false,      -- for so long that confirmation waits no longer; asked for on and on
    PRIMARY KEY (partition, hash)
);
CREATE INDEX IF NOT EXISTS wanted_blob_next ON wanted_blob (partition, next_at);
CREATE INDEX IF NOT EXISTS wanted_blob_position ON wanted_blob (partition, position) WHERE NOT lost;

CREATE TABLE IF NOT EXISTS rolled_back ( -- the last time that the tables were taken back to history
    partition  text PRIMARY KEY,
    times      bigint NOT NULL,
    was        bigint NOT NULL,          -- position before, and after
    position   bigint NOT NULL,
    accounts   bigint[],                 -- whose mail was taken back, NULL = anybody's
    at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS waits_for_release ( -- an event that only a newer release can fold
    partition  text PRIMARY KEY,
    position   bigint NOT NULL,
    event      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS digest_compared (   -- with another site, of late
    partition  text NOT NULL,
    site       text NOT NULL,
    agreed     bigint NOT NULL,          -- up to this position at least
    differs    bigint,                   -- the first checkpoint seen to differ, NULL = none
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, site)
);

CREATE TABLE IF NOT EXISTS blob_until (  -- at a site that keeps a window of some partition: how long each blob stays
    hash   bytea PRIMARY KEY,
    until  timestamptz NOT NULL          -- infinity = a partition that is kept whole names it
);
CREATE INDEX IF NOT EXISTS blob_until_at ON blob_until (until);

CREATE TABLE IF NOT EXISTS windowed (    -- by which windows the rows of blob_until were made
    partition  text PRIMARY KEY,
    days       integer NOT NULL          -- 0 = all is kept
);

CREATE TABLE IF NOT EXISTS search_state ( -- how far the search index of this site has come
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    indexed     bigint NOT NULL,         -- messages
    waiting     bigint NOT NULL,         -- messages that are to be in it and are not yet
    size_bytes  bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
