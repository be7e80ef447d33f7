"""How statements meet the messages of many ranges of UIDs."""

# The planner must not choose: left free it compares every range with every message, and 1,000 ranges in a large mailbox
# take minutes. OFFSET 0 keeps this a walk along the index, range by range. Rows that change are then met by their place (ctid),
# for the planner may think that a mailbox it has not counted yet holds one row, and compare each of them with each: a copy
# of 6,400 messages took 10 s, and 0.1 s so. Places hold within one statement, for who folds is the only one who writes.
RANGES = (
    "unnest({0}::bigint[], {1}::bigint[]) r(a, b) CROSS JOIN LATERAL "
    "(SELECT ctid AS place, * FROM flag WHERE mailbox = $1 AND uid BETWEEN r.a AND r.b OFFSET 0) f"
)
