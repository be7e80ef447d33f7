-- What tables made by an earlier release lack. Run with search_path set to `live`; looks before it locks.

DO $$
DECLARE
    columns text[] := ARRAY(
        SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema
    );
BEGIN
    IF 'queued.handed' <> ALL (columns) THEN
        ALTER TABLE queued ADD COLUMN handed integer NOT NULL DEFAULT 0;
    END IF;
    IF 'account.pop3_since' <> ALL (columns) THEN
        ALTER TABLE account ADD COLUMN pop3_since bigint NOT NULL DEFAULT 0;
    END IF;
    IF 'account.file_sent' <> ALL (columns) THEN
        ALTER TABLE account ADD COLUMN file_sent boolean NOT NULL DEFAULT false;
    END IF;
    IF 'account.shared' <> ALL (columns) THEN
        ALTER TABLE account ADD COLUMN shared boolean NOT NULL DEFAULT false;
    END IF;
    IF to_regclass('annotation') IS NULL THEN
        CREATE TABLE annotation (
            account  bigint NOT NULL,
            mailbox  bigint NOT NULL,
            whose    bigint NOT NULL,
            entry    text NOT NULL,
            value    bytea NOT NULL,
            PRIMARY KEY (mailbox, account, whose, entry)
        );
        CREATE INDEX annotation_account ON annotation (account);
    END IF;
    IF to_regclass('mailbox_right') IS NULL THEN
        CREATE TABLE mailbox_right (
            mailbox     bigint NOT NULL,
            identifier  text NOT NULL,
            negative    boolean NOT NULL,
            rights      text NOT NULL,
            PRIMARY KEY (mailbox, identifier, negative)
        );
        CREATE INDEX mailbox_right_identifier ON mailbox_right (identifier);
    END IF;
    IF to_regclass('seen_by') IS NULL THEN
        CREATE TABLE seen_by (
            mailbox  bigint NOT NULL,
            uid      bigint NOT NULL,
            account  bigint NOT NULL,
            seen     boolean NOT NULL,
            modseq   bigint NOT NULL,
            PRIMARY KEY (mailbox, uid, account)
        );
        CREATE INDEX seen_by_account ON seen_by (mailbox, account, modseq);
    END IF;
    IF 'account.quota_soft' <> ALL (columns) THEN
        ALTER TABLE account ADD COLUMN quota_storage bigint, ADD COLUMN quota_messages bigint, ADD COLUMN quota_soft smallint[];
    END IF;
    IF 'domain.quota_soft' <> ALL (columns) THEN
        ALTER TABLE domain ADD COLUMN quota_storage bigint NOT NULL DEFAULT 0,
            ADD COLUMN quota_messages bigint NOT NULL DEFAULT 0, ADD COLUMN quota_soft smallint[] NOT NULL DEFAULT '{90}';
    END IF;
    IF 'expunged.place' <> ALL (columns) THEN
        ALTER TABLE expunged ADD COLUMN place bigint NOT NULL DEFAULT 0, ADD COLUMN moved boolean NOT NULL DEFAULT false,
            ADD COLUMN taken bigint NOT NULL DEFAULT 0;
        -- As the fold gives them: in the order in which they went.
        UPDATE expunged e SET place = n.place
        FROM (SELECT mailbox, uid, row_number() OVER (PARTITION BY mailbox ORDER BY modseq, uid) AS place FROM expunged) n
        WHERE n.mailbox = e.mailbox AND n.uid = e.uid;
        -- What came into another mailbox when it went from this one was moved.
        UPDATE expunged e SET moved = true FROM message m
        WHERE m.thread = e.thread AND m.position = e.modseq AND m.content = e.content;
        UPDATE expunged e SET moved = true FROM expunged x
        WHERE x.thread = e.thread AND x.saved_at = e.at AND x.content = e.content AND x.modseq > e.modseq;
        CREATE INDEX expunged_place ON expunged (mailbox, place) WHERE taken = 0;
        CREATE INDEX expunged_taken ON expunged (mailbox, taken) WHERE taken > 0;
        CREATE INDEX mailbox_deleted_account ON mailbox_deleted (account);
    END IF;
    IF 'domain.undelete_days' <> ALL (columns) THEN
        ALTER TABLE domain ADD COLUMN undelete_days integer NOT NULL DEFAULT 14;
    END IF;
END $$;
