-- What the sensor asks at each tick: which hours have no certificate of their newest generation yet.
CREATE INDEX certificate_of_generation ON ledger.certificate (hour, generation);
