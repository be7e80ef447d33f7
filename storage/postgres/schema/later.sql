-- What tables made by an earlier release lack. Run with search_path set to `live`; looks before it locks.

DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = current_schema AND table_name = 'queued' AND column_name = 'handed'
    ) THEN
        ALTER TABLE queued ADD COLUMN handed integer NOT NULL DEFAULT 0;
    END IF;
    IF NOT EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = current_schema AND table_name = 'account' AND column_name = 'pop3_since'
    ) THEN
        ALTER TABLE account ADD COLUMN pop3_since bigint NOT NULL DEFAULT 0;
    END IF;
END $$;
