-- least code: 27
-- As before, in time that grows with the text and not with its square: a URL of 8,000 digits took 0.3 s, three times.
create or replace function outbox.looks_secret(value text) returns boolean language sql immutable strict parallel safe
begin atomic
    select value ~* '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
        or exists (select from regexp_matches(value, '[A-Za-z0-9]{16,}', 'g') runs(run)
                   where run[1] ~ '[0-9]' and run[1] ~ '[A-Za-z]')
        or length(value) >= 20 and value ~ '[0-9].*[0-9].*[0-9]' and value ~ '[A-Z]' and value ~ '[a-z]';
end;
