-- Money given as a gift has a kind of its own, and what is paid in or given is above zero.
-- The names of the constraints are those of the SQLite migration beside this one.
ALTER TABLE ledger_transactions
    DROP CONSTRAINT ledger_transactions_kind_known,
    ADD CONSTRAINT ledger_transactions_kind_known
        CHECK (kind IN ('settlement', 'refund', 'top_up', 'correction', 'goodwill')),
    ADD CONSTRAINT ledger_transactions_paid_in_above_zero CHECK (kind NOT IN ('top_up', 'goodwill') OR project > 0);
