-- Run at every migrate: the first leaves. Where that is not to be had at once, a running relay makes them later.
select outbox.make_event_leaf() from generate_series(1, 9);
select outbox.make_attempt_leaf() from generate_series(0, 7);
select outbox.make_key_leaf() from generate_series(0, 8);
select outbox.make_inbox_leaf() from generate_series(0, 7);
