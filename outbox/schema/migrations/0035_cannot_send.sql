-- least code: 27
-- To how many subscriptions a relay's machine could send nothing for a minute or longer, and to which for the longest.
-- Such attempts are not charged and leave no row, so only the relay itself can say so.
alter table outbox.relays
    add column cannot_send integer not null default 0,
    add column cannot_send_to uuid,
    add constraint cannot_send_is_positive check (cannot_send >= 0);
