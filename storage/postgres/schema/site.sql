-- What belongs to this site alone and is not made from the log. Run with search_path set to `site`.

CREATE TABLE IF NOT EXISTS blobs_kept (  -- contents up to here are blobs on disk (fsync done)
    partition  text PRIMARY KEY,
    position   bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS recent (      -- \Recent is not replicated: ops/decisions/imap-recent.md
    mailbox  bigint PRIMARY KEY,
    uid      bigint NOT NULL
);
