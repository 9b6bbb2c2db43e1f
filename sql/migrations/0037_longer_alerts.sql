-- The alerts of days and months that an hour is part of, among all that are kept: those of hours are found by their end.
CREATE INDEX alert_longer ON alert (ends) WHERE period <> 'hour';
