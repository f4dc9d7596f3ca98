-- An expression over the event, whose result is sent in place of its data. Its language is checked by whoever writes it.
alter table outbox.subscriptions
    add column transformation text,
    add constraint transformation_is_text check (octet_length(transformation) between 1 and 4096);
